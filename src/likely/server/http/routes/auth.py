"""Routes /v1/session and /v1/keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request, Response

from likely.server.http.auth import COOKIE, address_of, csrf_token, unauthorized
from likely.server.http.dependencies import AdminAccess, ReadAccess, ServiceDep, StateDep
from likely.server.http.schemas import (
    KeyInfo,
    LoginRequest,
    NewKeyRequest,
    NewKeyResponse,
    SessionInfo,
    problem_responses,
)
from likely.server.store import Key
from likely.server.store.queries import Word

ROUTER = APIRouter(prefix="/v1", tags=["access"])


@ROUTER.get("/session", responses=problem_responses(401, 403, 503))
def session(caller: ReadAccess) -> SessionInfo:
    """Return the authenticated key."""
    return _session_info(caller.key, caller.csrf)


@ROUTER.post("/session", responses=problem_responses(400, 401, 413, 422, 429, 503))
def log_in(request: Request, response: Response, state: StateDep, body: LoginRequest) -> SessionInfo:
    """Exchange a key for a session cookie."""
    service = state.service
    state.login_limits.take(address_of(request), 1)  # otherwise anyone could fill the audit log
    key = service.store.keys.find(body.key)
    if key is None or key.invalid_reason is not None:
        service.store.audit("log in refused", key.id if key else "", key=None, address=address_of(request))
        raise unauthorized(key.invalid_reason if key and key.invalid_reason else "there is no such key")
    hours = service.settings.session_hours
    secret = service.store.keys.log_in(key, hours)
    secure = request.url.scheme == "https"
    how = {"httponly": True, "samesite": "strict", "secure": secure, "max_age": int(hours * 3600)}
    response.set_cookie(COOKIE, secret, **how)  # type: ignore[arg-type]
    service.store.audit("log in", "", key=key.id, address=address_of(request))
    return _session_info(key, csrf_token(secret))


@ROUTER.delete("/session", status_code=204, responses=problem_responses(401, 403, 503))
def log_out(request: Request, response: Response, state: StateDep, caller: ReadAccess) -> None:
    """End the browser's session."""
    if secret := request.cookies.get(COOKIE):
        state.service.store.keys.log_out(secret)
        state.credentials.forget()
    response.delete_cookie(COOKIE)


@ROUTER.get("/keys", responses=problem_responses(401, 403, 503))
def keys(service: ServiceDep, caller: AdminAccess) -> list[KeyInfo]:
    """List all keys, without their secrets."""
    return [_key_info(key) for key in service.store.keys.all()]


@ROUTER.post("/keys", status_code=201, responses=problem_responses(400, 401, 403, 413, 422, 503))
def add_key(service: ServiceDep, caller: AdminAccess, body: NewKeyRequest) -> NewKeyResponse:
    """Create a key; its secret is shown only once."""
    key, secret = service.store.keys.add(body.name, body.scopes, days=body.days)
    service.store.audit("key added", f"{key.id} {key.name}", key=caller.key.id, address=caller.address)
    return NewKeyResponse(**_key_info(key).model_dump(), secret=secret)


@ROUTER.delete("/keys/{id}", status_code=204, responses=problem_responses(401, 403, 404, 422, 503))
def revoke(state: StateDep, caller: AdminAccess, id: Annotated[Word, Path(max_length=16)]) -> None:
    """Revoke a key and the sessions opened with it."""
    if not state.service.store.keys.revoke(id):
        raise HTTPException(404, "there is no such key")
    state.credentials.forget()
    state.service.store.audit("key revoked", id, key=caller.key.id, address=caller.address)


def _session_info(key: Key, csrf: str | None) -> SessionInfo:
    return SessionInfo(key=key.id, name=key.name, scopes=sorted(key.scopes), csrf=csrf)


def _key_info(key: Key) -> KeyInfo:
    return KeyInfo(**asdict(key) | {"scopes": sorted(key.scopes)})
