"""The web page and the interactive documentation, all served from here."""

import importlib.util
from collections.abc import Awaitable, Callable
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

DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Voiceprint service</title>
<link rel="stylesheet" href="{root}docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="{root}docs/swagger-ui-bundle.js"></script>
<script src="{root}docs/start.js"></script>
</body></html>
"""

DOCS_SCRIPT = """SwaggerUIBundle({
  url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null,
});
"""

PLAIN_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Voiceprint service</title></head>
<body><h1>Voiceprint service</h1>
<p>The interface is described by <a href="openapi.json">openapi.json</a>.
To try it in this page: <code>pip install fastapi-offline</code>, and start the service again.</p>
</body></html>
"""


def add_pages(app: FastAPI) -> None:
    """Mounts the page, its files and the documentation."""
    folder = find_docs_folder()

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> HTMLResponse:
        return HTMLResponse(PLAIN_PAGE if folder is None else DOCS_PAGE.format(root=""))

    @app.get("/voiceprint/docs", include_in_schema=False)
    @app.get("/voiceprint/redoc", include_in_schema=False)
    async def show_classic_docs() -> HTMLResponse:
        return HTMLResponse(PLAIN_PAGE if folder is None else DOCS_PAGE.format(root="../"))

    @app.get("/voiceprint/openapi.json", include_in_schema=False)
    async def show_classic_schema() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs/start.js", include_in_schema=False)
    async def start_docs() -> Response:
        return Response(DOCS_SCRIPT, media_type="text/javascript")

    if folder is not None:
        for name in DOCS_FILES:
            path = folder / name
            app.add_api_route(
                f"/docs/{name}", _file_route(path), include_in_schema=False, methods=["GET"]
            )
    if (STATIC_FOLDER / "index.html").is_file():
        app.add_api_route(
            "/",
            _file_route(STATIC_FOLDER / "index.html"),
            include_in_schema=False,
            methods=["GET", "HEAD"],
        )
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
