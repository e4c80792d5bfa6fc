"""What a server of `dlkit serve` answers at which address.

    GET  /               the page: page.html with its style and scripts beside it, which asks nothing from elsewhere
    POST /predict?topk=  an image's bytes, or a text, as the body → the record of `dlkit predict`, dlkit.predict/1
    POST /explain        the same body → the record of `dlkit explain`; of an image its png is a data: URL
    GET  /model          what the model reads, and its classes
    GET  /health         whether the server lives
    GET  /openapi.json   these addresses for programs; FastAPI's own page of them loads scripts from another server,
                         so /docs leads to a part of ours

What is not answered is refused in JSON with an error of dlkit's codes, {"error": {"code": 4, "message": …}}; an image
or a text that cannot be read, by predict's own record of that.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from dlkit.errors import UsageError
from dlkit.evaluation.evaluate import DEFAULT_TOPK
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.explanation.records import Explanation
from dlkit.serve.limits import BODY_S, MAX_BYTES, MOST, Desk, Guard, Refused, status_of
from dlkit.serve.server import Held, Say, Served, overlaid
from dlkit.specs import ImageSpec
from dlkit.version import __version__

SCHEMA = "dlkit.serve/1"
PAGE = {"/": "page.html", **{f"/{name}": name for name in ("page.css", "page.js", "draw.js")}}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def application(served: Served, host: str, say: Say) -> ASGIApp:
    """The ASGI application of a model, which answers at that address."""
    app = FastAPI(
        title=f"dlkit serve: {served.model}",
        version=__version__,
        description=f"Answers of {served.model} ({served.name}), by dlkit on this machine.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_page(app)
    _add_model(app, served)
    _add_answers(app, served, Desk(say))
    _add_refusals(app)
    return Guard(app, host)


def _add_page(app: FastAPI) -> None:
    for address, name in PAGE.items():
        content = files("dlkit.serve").joinpath(name).read_bytes()  # now, so that no request reaches a file
        response = Response(content, media_type=TYPES[name.rpartition(".")[2]])
        app.add_api_route(address, _always(response), include_in_schema=False)
    app.add_api_route("/docs", _always(RedirectResponse("/#api")), include_in_schema=False)


def _always(response: Response) -> Callable[[], Response]:
    return lambda: response


def _add_model(app: FastAPI, served: Served) -> None:
    @app.get("/health", summary="Whether the server lives")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/model", summary="What the model reads, and its classes")
    def model() -> dict[str, Any]:
        return model_document(served)


def model_document(served: Served) -> dict[str, Any]:
    """What a client needs to know: `dlkit.serve/1`."""
    spec = served.spec
    found: dict[str, Any] = {"schema": SCHEMA, "name": served.name, "model": served.model, "reads": spec.kind}
    if isinstance(spec, ImageSpec):
        found |= {"channels": spec.channels, "height": spec.height, "width": spec.width}
    return found | {"classes": list(spec.classes), "explains": served.explain is not None, "max_bytes": MAX_BYTES}


def _add_answers(app: FastAPI, served: Served, desk: Desk) -> None:
    classes = len(served.spec.classes)
    described: dict[str, Any] = {"responses": RESPONSES, "openapi_extra": _body_document(served.spec.kind)}

    @app.post("/predict", summary="The most probable classes", **described)
    async def predict(request: Request, topk: int | None = None) -> Response:
        """The record of dlkit predict --format json for the body; topk is how many classes to name."""
        k = min(DEFAULT_TOPK, classes) if topk is None else topk
        if not 1 <= k <= classes:
            what = f"topk={topk}: the model has {classes} classes, so k is 1 to {classes}."
            raise Refused(400, UsageError.exit_code, what)
        return await desk.answer(request, lambda given: _predicted(served.predict, given, k))

    @app.post("/explain", summary="Where in an image, or by which words, the answer comes about", **described)
    async def explain(request: Request) -> Response:
        """The record of dlkit explain --format json for the body; of an image its png is the picture itself."""
        held = served.explain
        if held is None:
            what = f"{served.name} is an exported file, and explanations are for runs."
            raise Refused(400, UsageError.exit_code, what)
        return await desk.answer(request, lambda given: _explained(held, given))


def _predicted(held: Held[Prediction | Failure], given: bytes, topk: int) -> tuple[dict[str, Any], int]:
    found = held.answer(given)
    if isinstance(found, Failure):
        return found.document(), status_of(found.code)
    return replace(found, predictions=found.predictions[:topk]).document(), 200


def _explained(held: Held[Explanation | Failure], given: bytes) -> tuple[dict[str, Any], int]:
    found = held.answer(given)
    if isinstance(found, Failure):
        return found.document(), status_of(found.code)
    document = found.document()
    if found.image is not None:
        document["png"] = "data:image/png;base64," + base64.b64encode(overlaid(found)).decode()
    return document, 200


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path}: {error.detail.lower()}. The addresses are listed at /docs."
        return Refused(error.status_code, UsageError.exit_code, what).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        what = f"{first['loc'][-1]}={str(first['input'])[:40]}: {first['msg']}."
        return Refused(400, UsageError.exit_code, what).response()


ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "integer", "description": "dlkit's exit code for errors of this kind"},
                "message": {"type": "string"},
            },
        }
    },
}
REFUSALS = {
    400: "A parameter, or what this model cannot do",
    403: "Another host name than this machine's, or a page from elsewhere",
    408: f"A body that does not arrive within {BODY_S:.0f} s",
    413: f"A body of more than {MAX_BYTES >> 20} MiB",
    415: "A form instead of the file itself",
    422: "No image, a damaged one, or one above 50 megapixels; no text",
    503: f"{MOST} requests are waiting already",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "dlkit's record", "content": {"application/json": {"schema": {"type": "object"}}}},
    **{
        status: {"description": why, "content": {"application/json": {"schema": ERROR}}}
        for status, why in REFUSALS.items()
    },
}


def _body_document(reads: str) -> dict[str, Any]:
    if reads == ImageSpec.kind:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    else:
        content = {"text/plain": {"schema": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": content}}
