"""What a server of `dlkit serve` answers at which address.

    GET  /               the page: page.html with its style and scripts beside it, which asks nothing from elsewhere
    POST /predict?topk=  an image's bytes, or a text, as the body → the record of `dlkit predict`, dlkit.predict/1;
                         {"image": base64} or {"text": …} as well; of a form or a JSON list a list of records
    POST /explain        the same body → the record of `dlkit explain`; of an image its png is a data: URL
    GET  /model          what the model reads, and its classes
    GET  /health         whether the server lives
    GET  /metrics        requests, latencies and errors for Prometheus
    GET  /openapi.json   these addresses for programs; FastAPI's own page of them loads scripts from another server,
                         so /docs leads to a part of ours

What is not answered is refused in JSON with an error of dlkit's codes, {"error": {"code": 4, "message": …}}; an image
or a text that cannot be read, by predict's own record of that. HEAD is answered wherever GET is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from dlkit.errors import UsageError
from dlkit.evaluation.options import DEFAULT_TOPK
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.explanation.records import Explanation
from dlkit.serve.bodies import MAX_INPUTS, parse
from dlkit.serve.limits import BODY_S, MAX_BYTES, MOST, Desk, Guard, Refused, status_of
from dlkit.serve.metrics import Measured, Metrics
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
    metrics = Metrics()
    _add_page(app)
    _add_model(app, served)
    _add_answers(app, served, Answers(Desk(say), metrics, served.spec.kind))
    _add_refusals(app, metrics)
    app.add_api_route("/metrics", metrics.response, summary="Requests, latencies and errors for Prometheus")
    paths = frozenset(str(path) for route in app.routes if (path := getattr(route, "path", None)))
    return Measured(Guard(app, host), metrics, paths)


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


Document = dict[str, Any]


class Answers:
    """From a request to the records of its inputs: one, or a list where the body is a list."""

    def __init__(self, desk: Desk, metrics: Metrics, reads: str) -> None:
        self.desk, self.metrics, self.reads = desk, metrics, reads

    async def of(self, request: Request, answer: Callable[[bytes], Document]) -> Response:
        content_type = request.headers.get("content-type", "")
        return await self.desk.answer(request, lambda body: self._documents(content_type, body, answer))

    def _documents(self, content_type: str, body: bytes, answer: Callable[[bytes], Document]) -> tuple[Any, int]:
        inputs = parse(content_type, body, self.reads)
        documents = [answer(content) | {"path": path} for path, content in inputs.items]
        codes = [document["error"]["code"] for document in documents if "error" in document]
        self.metrics.inputs.inc(len(documents) - len(codes))
        for code in codes:
            self.metrics.errors.labels(code).inc()
        status = status_of(codes[0]) if len(codes) == len(documents) else 200
        return (documents if inputs.is_list else documents[0]), status


def _add_answers(app: FastAPI, served: Served, answers: Answers) -> None:
    classes = len(served.spec.classes)
    default = min(DEFAULT_TOPK, classes)
    described: dict[str, Any] = {"responses": RESPONSES, "openapi_extra": _body_document(served.spec.kind)}
    allowed = {"minimum": 1, "maximum": classes}  # not ge and le, whose message does not name both

    @app.post("/predict", summary="The most probable classes", **described)
    async def predict(request: Request, topk: int = Query(default, json_schema_extra=allowed)) -> Response:
        """The record of dlkit predict --format json for the body; topk is how many classes to name."""
        if not 1 <= topk <= classes:
            what = f"topk={topk}: the model has {classes} classes, so k is 1 to {classes}."
            raise Refused(400, UsageError.exit_code, what)
        return await answers.of(request, lambda content: _predicted(served.predict, content, topk))

    @app.post("/explain", summary="Where in an image, or by which words, the answer comes about", **described)
    async def explain(request: Request) -> Response:
        """The record of dlkit explain --format json for the body; of an image its png is the picture itself."""
        held = served.explain
        if held is None:
            what = f"{served.name} is an exported file, and explanations are for runs."
            raise Refused(400, UsageError.exit_code, what)
        return await answers.of(request, lambda content: _explained(held, content))


def _predicted(held: Held[Prediction | Failure], content: bytes, topk: int) -> Document:
    answer = held.answer(content)
    if isinstance(answer, Failure):
        return answer.document()
    return replace(answer, predictions=answer.predictions[:topk]).document()


def _explained(held: Held[Explanation | Failure], content: bytes) -> Document:
    answer = held.answer(content)
    document = answer.document()
    if isinstance(answer, Explanation) and answer.image is not None:
        document["png"] = "data:image/png;base64," + base64.b64encode(overlaid(answer)).decode()
    return document


def _add_refusals(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        metrics.errors.labels(error.code).inc()
        return error.response()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path}: {error.detail.lower()}. The addresses are listed at /docs."
        response = Refused(error.status_code, UsageError.exit_code, what).response()
        if allow := (error.headers or {}).get("Allow"):
            response.headers["Allow"] = f"{allow}, HEAD" if "GET" in allow else allow
        return response

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
    413: f"A body of more than {MAX_BYTES >> 20} MiB, or of more than {MAX_INPUTS} inputs",
    415: "A type that is neither the file itself, nor a form, nor JSON",
    422: "No image, a damaged one, or one above 50 megapixels; no text; of several inputs: all of them",
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
    text, image = {"type": "string"}, {"type": "string", "format": "binary"}
    raw, key = (
        ({"application/octet-stream": image}, "image") if reads == ImageSpec.kind else ({"text/plain": text}, "text")
    )
    one = {"type": "object", "required": [key], "properties": {key: text}}
    several = {"type": "array", "items": {"anyOf": [text, one]}, "minItems": 1, "maxItems": MAX_INPUTS}
    form = {"type": "object", "additionalProperties": image}
    kinds = {**raw, "application/json": {"anyOf": [one, several]}, "multipart/form-data": form}
    return {"requestBody": {"required": True, "content": {kind: {"schema": kinds[kind]} for kind in kinds}}}
