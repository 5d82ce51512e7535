"""The web page and the interactive documentation, all served from here."""

import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

STATIC_FOLDER = Path(__file__).resolve().parents[1] / "static"

DOCS_PACKAGE = "fastapi_offline"
"""The package with the local copy of Swagger UI: nothing is fetched from another machine."""

DOCS_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")


def add_pages(app: FastAPI) -> None:
    """Mounts the page, its files and the documentation."""
    folder = find_docs_folder()
    files = {
        "/": STATIC_FOLDER / "index.html",
        "/docs": STATIC_FOLDER / ("docs_plain.html" if folder is None else "docs.html"),
        "/docs/start.js": STATIC_FOLDER / "docs.js",
    }
    if folder is not None:
        files |= {f"/docs/{name}": folder / name for name in DOCS_FILES}
    for path, file in files.items():
        app.add_api_route(path, _file_route(file), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC_FOLDER), name="static")


def find_docs_folder() -> Path | None:
    """Returns the folder of Swagger UI's files, or None if the package is not installed."""
    spec = importlib.util.find_spec(DOCS_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "static"
    return folder if all((folder / name).is_file() for name in DOCS_FILES) else None


def _file_route(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    """Returns a route that sends a file."""

    async def send_file() -> FileResponse:
        return FileResponse(path)

    return send_file
