"""Web pages, reports, model cards and the export of labeled images."""

from __future__ import annotations

import re
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import BinaryIO

from fastapi import APIRouter, HTTPException
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, StreamingResponse

from likely.checkpoint import ModelFolder
from likely.experiment import CARD, REPORT
from likely.server import web
from likely.server.http.dependencies import ModelDep, ReadAccess, ServiceDep
from likely.server.http.model_registry import LoadedModel
from likely.server.http.schemas import Responses, problem_responses
from likely.server.http.service import Service
from likely.server.store import PredictionFilter, Store

PAGES = Path(web.__file__).parent / "pages"
# A report contains its images and styles, and no scripts.
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
ROUTER = APIRouter()
HTML: Responses = {200: {"content": {"text/html": {}}, "description": "The page."}}
TEXT: Responses = {200: {"content": {"text/plain": {}}, "description": "Markdown."}}
ZIP: Responses = {
    200: {"content": {"application/zip": {}}, "description": "ZIP archive with one folder for each class."}
}
BLOCK = 1 << 16  # bytes
EXPORTING = threading.Lock()  # one export at a time, because it is slow
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/gif": ".gif", "image/bmp": ".bmp"}


@ROUTER.get("/", include_in_schema=False)
async def index() -> FileResponse:
    """Return the web application."""
    return FileResponse(PAGES / "index.html")


@ROUTER.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """Return the reference of the HTTP API."""
    return FileResponse(PAGES / "docs.html")


@ROUTER.get(
    "/v1/models/{model}/report",
    tags=["models"],
    responses={**HTML, **problem_responses(401, 403, 404, 422, 503)},
    response_class=HTMLResponse,
)
def report(service: ServiceDep, caller: ReadAccess, model: ModelDep) -> HTMLResponse:
    """Return the training report of a model."""
    return HTMLResponse(_page(service, model, REPORT), headers={"Content-Security-Policy": REPORT_POLICY})


@ROUTER.get(
    "/v1/models/{model}/card",
    tags=["models"],
    responses={**TEXT, **problem_responses(401, 403, 404, 422, 503)},
    response_class=PlainTextResponse,
)
def card(service: ServiceDep, caller: ReadAccess, model: ModelDep) -> PlainTextResponse:
    """Return the model card, in Markdown."""
    return PlainTextResponse(_page(service, model, CARD))


@ROUTER.get(
    "/v1/predictions/folder",
    tags=["predictions"],
    responses={**ZIP, **problem_responses(401, 403, 422, 503)},
    response_class=StreamingResponse,
)
def folder(service: ServiceDep, caller: ReadAccess) -> StreamingResponse:
    """Return all labeled images as a ZIP archive of class folders."""
    file = tempfile.TemporaryFile(dir=service.store.folder)  # noqa: SIM115  # unnamed: deleted with the process
    try:
        with EXPORTING:
            _write_archive(service.store, file)
        n = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    headers = {"Content-Disposition": 'attachment; filename="labeled.zip"', "Content-Length": str(n)}
    blocks = iter(lambda: file.read(BLOCK), b"")
    away = BackgroundTask(file.close)
    return StreamingResponse(blocks, media_type="application/zip", headers=headers, background=away)


def _page(service: Service, model: LoadedModel, name: str) -> bytes:
    """Return a document of a model folder."""
    files = ModelFolder(model.folder, service.registry.trust)
    if not files.has(name):
        raise HTTPException(404, f"{model.id} has no {name}, because it was saved from Python")
    return files.read(name)


def _write_archive(store: Store, file: BinaryIO) -> None:
    """Write a ZIP archive of class folders; an image with several predictions appears once, under its last label."""
    written = set[str]()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for each in store.iterate(PredictionFilter(is_labeled=True)):
            picture = store.image(each.image) if each.image not in written else None
            if picture is not None and each.true_label is not None:
                written.add(each.image)
                name = each.image[:16] + SUFFIXES.get(picture.media_type, "")
                archive.writestr(f"{_folder_name(each.true_label)}/{name}", picture.content)


def _folder_name(label: str) -> str:
    """Return a safe relative folder path for a label."""
    folders = [re.sub(r"[^\w .()+-]", "_", name).strip(". ") or "_" for name in label.split("/")]
    return "/".join(folders)
