"""Uploaded images: multipart form, raw bytes, or base64 in JSON, within the size limits."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple, Self

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as Refused
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from likely.server.http.settings import Settings

FIELDS = 20  # form fields besides the files
EXPECTED = "images as multipart/form-data, as image/* or application/octet-stream, or as base64 in application/json"
BODY: dict[str, Any] = {  # OpenAPI description of the request body
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["data"],
                            "additionalProperties": False,
                            "properties": {
                                "data": {"type": "string", "format": "byte"},
                                "name": {"type": "string", "maxLength": 255},
                            },
                        },
                    }
                },
            }
        },
    },
}


class Upload(NamedTuple):
    """Uploaded image; `fault` says why there is no content."""

    name: str
    content: bytes
    fault: str = ""

    @classmethod
    def from_base64(cls, name: str, data: str) -> Self:
        """Decode a base64 string, with or without line breaks or the prefix of a data URL."""
        digits = data.partition(",")[2] if data.startswith("data:") else data
        try:
            return cls(name, base64.b64decode("".join(digits.split()), validate=True))
        except ValueError:
            return cls(name, b"", f"{name}: is not base64")


async def read_uploads(request: Request, settings: Settings) -> list[Upload]:
    """Return the uploaded images, at least one of them not empty.

    Raises HTTPException 400, 413, 415 or 422 that says what was expected.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _of_form(request, settings)
    elif kind == "application/json":
        found = await run_in_threadpool(_of_json, await request.body())
    elif kind == "application/octet-stream" or kind.startswith("image/"):
        found = [Upload(_name(request.query_params.get("name"), 0), await request.body())]
    else:
        raise HTTPException(415, f"{kind or 'no content type'!r} is not supported; {EXPECTED} were expected")
    if not any(upload.content for upload in found):
        why = next(
            (upload.fault for upload in found if upload.fault), "an image is empty" if found else "there is no image"
        )
        raise HTTPException(422, f"{why}; {EXPECTED} were expected")
    if len(found) > settings.max_images:
        raise HTTPException(413, f"there are {len(found)} images; at most {settings.max_images} were expected")
    return found


async def _of_form(request: Request, settings: Settings) -> list[Upload]:
    try:
        async with request.form(max_files=settings.max_images, max_fields=FIELDS) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            return [Upload(_name(file.filename, i), await file.read()) for i, file in enumerate(files)]
    except Refused as error:
        many = "Too many files" in str(error.detail)
        raise HTTPException(413 if many else 400, f"the form cannot be read: {str(error.detail).lower()}") from None
    except (MultiPartException, ClientDisconnect, ValueError) as error:
        raise HTTPException(400, f"the form cannot be read: {error}") from None


def _of_json(body: bytes) -> list[Upload]:
    try:
        images = json.loads(body)["images"]
        return [Upload.from_base64(_name(image.get("name"), i), image["data"]) for i, image in enumerate(images)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HTTPException(422, 'the JSON is not {"images": [{"data": "…base64…", "name": "a.png"}, …]}') from None


def _name(name: object, i: int) -> str:
    """Return a printable name: a lone surrogate or a zero byte would make other predictions unwritable."""
    name = "".join(each for each in name[:255] if each.isprintable()) if isinstance(name, str) else ""
    return name or f"image {i + 1}"
