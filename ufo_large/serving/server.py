"""The web server of a trained model: a page, and an API beside it. See docs/serve.md."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

import ufo_large.tracking
from ufo_large.serving.guard import Guard
from ufo_large.serving.limits import Limits
from ufo_large.serving.predictor import UFO
from ufo_large.serving.samples import Sample
from ufo_large.serving.service import Service

HERE, REPORT = Path(__file__).parent, Path(ufo_large.tracking.__file__).parent
BARE = (400, 404, 405)
REMEDY = "see /openapi.json; a picture goes to POST /predict as `file` of multipart/form-data"
ERRORS = {
    400: {"description": "not a multipart form, or a foreign Host"},
    413: {"description": "too many bytes or pixels"},
    422: {"description": "no picture, or an unknown task"},
    503: {"description": "all places are taken; Retry-After says when to ask again"},
}


def make_app(
    model: UFO, limits: Limits | None = None, samples: Sequence[Sample] = (), local: bool = True
) -> FastAPI:
    """Return the application. `local`: it listens to this machine alone; see `Guard`."""
    limits = limits or Limits()
    service = Service(model, limits, samples)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # FastAPI's pages for the API load their scripts from another server; ours works offline
    app = FastAPI(title="UFO-Large", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.add_middleware(Guard, limits=limits, local=local)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    app.add_api_route("/predict", service.predict, methods=["POST"], responses=ERRORS)
    app.add_api_route("/model", service.describe)
    app.add_api_route("/health", service.health)
    app.add_api_route("/samples", service.list_samples)
    app.add_api_route("/samples/{number}", service.sample)
    for path, text, kind in _page():
        answer = partial(_static, text, kind)
        app.add_api_route(path, answer, include_in_schema=False, response_class=Response)
    return app


def _page() -> list[tuple[str, str, str]]:
    """Return (path, text, media type) of the page's files; it looks like the report."""
    read = lambda path: path.read_text(encoding="utf-8")
    style = read(REPORT / "report.css") + read(HERE / "page.css")
    return [
        ("/", read(HERE / "page.html"), HTMLResponse.media_type),
        ("/page.css", style, "text/css"),
        ("/page.js", read(HERE / "page.js"), "text/javascript"),
    ]


async def _static(text: str, media_type: str) -> Response:
    return Response(text, media_type=media_type)


async def _refused(request: Request, error: HTTPException) -> JSONResponse:
    """Put a remedy beside the framework's bare words, such as Not Found."""
    more = f"; {REMEDY}" if error.status_code in BARE else ""
    return JSONResponse({"detail": f"{error.detail.rstrip('.')}{more}"}, error.status_code, error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return JSONResponse({"detail": f"{told[:500]}; {REMEDY}"}, 422)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"{type(error).__name__}; the server's log says more"}, 500)
