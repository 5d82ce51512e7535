"""The web page and the interactive documentation, all served from here."""

import importlib.util
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

STATIC_FOLDER = Path(__file__).resolve().parents[1] / "static"

DOCS_PACKAGE = "fastapi_offline"
"""The package with the local copy of Swagger UI: nothing is fetched from another machine."""

DOCS_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")

CLASSIC_PAGES = ("/voiceprint/docs", "/voiceprint/redoc", "/voiceprint/openapi.json")
"""The documentation where clients of voiceprint-api look for it."""


def add_pages(app: FastAPI) -> None:
    """Mounts the page, its files and the documentation."""
    folder = find_docs_folder()
    docs = STATIC_FOLDER / ("docs_plain.html" if folder is None else "docs.html")
    page = docs.read_text(encoding="utf-8")
    files = {"/": STATIC_FOLDER / "index.html", "/docs/start.js": STATIC_FOLDER / "docs.js"}
    if folder is not None:
        files |= {f"/docs/{name}": folder / name for name in DOCS_FILES}
    routes: dict[str, Callable[[], Response]] = {
        path: partial(FileResponse, file) for path, file in files.items()
    }
    routes["/docs"] = partial(HTMLResponse, page)
    for path in CLASSIC_PAGES[:2]:
        routes[path] = partial(HTMLResponse, page.replace('"docs/', '"../docs/'))
    routes[CLASSIC_PAGES[2]] = lambda: JSONResponse(app.openapi())
    for path, answer in routes.items():
        app.add_api_route(path, _route(answer), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC_FOLDER), name="static")


def find_docs_folder() -> Path | None:
    """Returns the folder of Swagger UI's files, or None if the package is not installed."""
    spec = importlib.util.find_spec(DOCS_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "static"
    return folder if all((folder / name).is_file() for name in DOCS_FILES) else None


def _route(answer: Callable[[], Response]) -> Callable[[], Awaitable[Response]]:
    """Returns a route that gives an answer; async, since others take a thread each time."""

    async def send() -> Response:
        return answer()

    return send
