"""The ASGI application: routes, middleware and web pages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from likely.server.http.auth import CredentialCache, TokenBucket
from likely.server.http.dependencies import AppState
from likely.server.http.exception_handlers import HANDLERS
from likely.server.http.metrics import Metrics
from likely.server.http.middleware import RequestMiddleware
from likely.server.http.model_registry import ModelRegistry
from likely.server.http.routes import auth, explain, health, kserve, models, predictions, web
from likely.server.http.service import Service
from likely.server.http.settings import Settings
from likely.server.store import Store
from likely.version import __version__

ROUTERS = (web.ROUTER, models.ROUTER, explain.ROUTER, predictions.ROUTER, auth.ROUTER, health.ROUTER, kserve.ROUTER)
ENCODING_OVERHEAD = 1.4  # of base64 and multipart forms
MAX_INFLIGHT_REQUESTS = 4  # requests of the maximum size


def application(registry: ModelRegistry, store: Store, settings: Settings) -> FastAPI:
    """Return the service as an ASGI application; on shutdown it completes all queued requests."""
    service: Service
    metrics = Metrics(lambda: float(service.n_inflight))
    service = Service(registry, store, settings, metrics.batch)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        retaining = asyncio.create_task(service.prune_periodically())
        yield
        retaining.cancel()
        await run_in_threadpool(service.close)

    about = "The generative image classifier: it classifies images and detects those of no known class."
    app = FastAPI(
        title="Likely",
        version=__version__,
        description=about,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers=HANDLERS,
    )
    app.state.likely = AppState(
        service,
        metrics,
        TokenBucket(settings.rate_limit),
        TokenBucket(settings.login_rate_limit),
        CredentialCache(store),
    )
    app.state.log = logging.getLogger("likely")
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/pages", StaticFiles(directory=web.PAGES), "pages")
    most = min(settings.max_request_bytes, int(ENCODING_OVERHEAD * settings.max_images * settings.max_bytes))
    limits = {"max_bytes": most, "max_inside": MAX_INFLIGHT_REQUESTS * settings.max_request_bytes}
    app.add_middleware(RequestMiddleware, metrics=metrics, is_full=lambda: service.is_full, **limits)
    return app
