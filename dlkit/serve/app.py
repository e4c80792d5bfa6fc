"""The web application of `dlkit serve`.

    GET  /               the page: page.html with its style and scripts, which loads nothing from other servers
    POST /predict?topk=  an image's bytes, or a text, as the body → the record of `dlkit predict`, dlkit.predict/1;
                         {"image": base64} or {"text": …} as well; for a form or a JSON list a list of records
    POST /explain        the same body → the record of `dlkit explain`; for an image its png is a data: URL
    GET  /model          the model's input and its classes
    GET  /health         whether the server is running
    GET  /metrics        requests, latencies and errors for Prometheus
    GET  /openapi.json   this interface as OpenAPI; FastAPI's own page of it loads scripts from another server, so /docs
                         redirects to a part of our page

Errors are JSON with dlkit's exit codes, {"error": {"code": 4, "message": …}}; an unreadable image or text has the error
record of predict. HEAD is supported wherever GET is.
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
from dlkit.serve.limits import BODY_S, MAX_BYTES, MAX_WAITING, Guard, RequestError, RequestQueue, status_of
from dlkit.serve.metrics import Metrics, MetricsMiddleware
from dlkit.serve.model import Say, ServedModel, Session, overlay_png
from dlkit.specs import ImageSpec
from dlkit.version import __version__

SCHEMA = "dlkit.serve/1"
PAGE = {"/": "page.html", **{f"/{name}": name for name in ("page.css", "page.js", "draw.js")}}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def application(served: ServedModel, host: str, say: Say) -> ASGIApp:
    """The ASGI application of a model at that address."""
    app = FastAPI(
        title=f"dlkit serve: {served.model}",
        version=__version__,
        description=f"Predictions of {served.model} ({served.name}), by dlkit on this machine.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    metrics = Metrics()
    _add_page(app)
    _add_model(app, served)
    _add_endpoints(app, served, RequestHandler(RequestQueue(say), metrics, served.spec.kind))
    _add_error_handlers(app, metrics)
    app.add_api_route("/metrics", metrics.response, summary="Requests, latencies and errors for Prometheus")
    paths = frozenset(str(path) for route in app.routes if (path := getattr(route, "path", None)))
    return MetricsMiddleware(Guard(app, host), metrics, paths)


def _add_page(app: FastAPI) -> None:
    for address, name in PAGE.items():
        content = files("dlkit.serve").joinpath(name).read_bytes()  # at start, so that no request reads a file
        response = Response(content, media_type=TYPES[name.rpartition(".")[2]])
        app.add_api_route(address, _constant(response), include_in_schema=False)
    app.add_api_route("/docs", _constant(RedirectResponse("/#api")), include_in_schema=False)


def _constant(response: Response) -> Callable[[], Response]:
    return lambda: response


def _add_model(app: FastAPI, served: ServedModel) -> None:
    @app.get("/health", summary="Whether the server is running")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/model", summary="The model's input and its classes")
    def model() -> dict[str, Any]:
        return model_document(served)


def model_document(served: ServedModel) -> dict[str, Any]:
    """What a client needs to know of the model: `dlkit.serve/1`."""
    spec = served.spec
    document: dict[str, Any] = {"schema": SCHEMA, "name": served.name, "model": served.model, "reads": spec.kind}
    if isinstance(spec, ImageSpec):
        document |= {"channels": spec.channels, "height": spec.height, "width": spec.width}
    return document | {"classes": list(spec.classes), "explains": served.explain is not None, "max_bytes": MAX_BYTES}


Document = dict[str, Any]


class RequestHandler:
    """Computes the records of a request's inputs: one, or a list if the body is a list."""

    def __init__(self, queue: RequestQueue, metrics: Metrics, kind: str) -> None:
        self.queue, self.metrics, self.kind = queue, metrics, kind

    async def handle(self, request: Request, process: Callable[[bytes], Document]) -> Response:
        content_type = request.headers.get("content-type", "")
        return await self.queue.answer(request, lambda body: self._documents(content_type, body, process))

    def _documents(self, content_type: str, body: bytes, process: Callable[[bytes], Document]) -> tuple[Any, int]:
        inputs = parse(content_type, body, self.kind)
        documents = [process(content) | {"path": path} for path, content in inputs.items]
        codes = [document["error"]["code"] for document in documents if "error" in document]
        self.metrics.inputs.inc(len(documents) - len(codes))
        for code in codes:
            self.metrics.errors.labels(code).inc()
        status = status_of(codes[0]) if len(codes) == len(documents) else 200
        return (documents if inputs.is_list else documents[0]), status


def _add_endpoints(app: FastAPI, served: ServedModel, handler: RequestHandler) -> None:
    classes = len(served.spec.classes)
    default = min(DEFAULT_TOPK, classes)
    described: dict[str, Any] = {"responses": RESPONSES, "openapi_extra": _body_document(served.spec.kind)}
    allowed = {"minimum": 1, "maximum": classes}  # not ge and le, whose message does not name both limits

    @app.post("/predict", summary="The most probable classes", **described)
    async def predict(request: Request, topk: int = Query(default, json_schema_extra=allowed)) -> Response:
        """The record of dlkit predict --format json for the body; topk is the number of classes."""
        if not 1 <= topk <= classes:
            message = f"topk={topk}: the model has {classes} classes, so k is 1 to {classes}."
            raise RequestError(400, UsageError.exit_code, message)
        return await handler.handle(request, lambda content: _predict(served.predict, content, topk))

    @app.post("/explain", summary="The pixels or words that the prediction depends on", **described)
    async def explain(request: Request) -> Response:
        """The record of dlkit explain --format json for the body; for an image, png is the overlay as a data: URL."""
        session = served.explain
        if session is None:
            message = f"{served.name} is an exported file: explanations need a run."
            raise RequestError(400, UsageError.exit_code, message)
        return await handler.handle(request, lambda content: _explain(session, content))


def _predict(session: Session[Prediction | Failure], content: bytes, topk: int) -> Document:
    record = session.process(content)
    if isinstance(record, Failure):
        return record.document()
    return replace(record, predictions=record.predictions[:topk]).document()


def _explain(session: Session[Explanation | Failure], content: bytes) -> Document:
    record = session.process(content)
    document = record.document()
    if isinstance(record, Explanation) and record.image is not None:
        document["png"] = "data:image/png;base64," + base64.b64encode(overlay_png(record)).decode()
    return document


def _add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        metrics.errors.labels(error.code).inc()
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail.lower()}. The addresses are listed at /docs."
        response = RequestError(error.status_code, UsageError.exit_code, message).response()
        if allow := (error.headers or {}).get("Allow"):
            response.headers["Allow"] = f"{allow}, HEAD" if "GET" in allow else allow
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        message = f"{first['loc'][-1]}={str(first['input'])[:40]}: {first['msg']}."
        return RequestError(400, UsageError.exit_code, message).response()


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
ERROR_REASONS = {
    400: "An invalid parameter, or a request that this model does not support",
    403: "A foreign host name, or a page of another server",
    408: f"The body did not arrive within {BODY_S:.0f} s",
    413: f"A body of more than {MAX_BYTES >> 20} MiB, or with more than {MAX_INPUTS} inputs",
    415: "A type that is neither the file itself, nor a form, nor JSON",
    422: "Not an image, a damaged one, or one above 50 megapixels; not a text; for several inputs: all of them",
    503: f"{MAX_WAITING} requests are already waiting",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "dlkit's record", "content": {"application/json": {"schema": {"type": "object"}}}},
    **{
        status: {"description": reason, "content": {"application/json": {"schema": ERROR}}}
        for status, reason in ERROR_REASONS.items()
    },
}


def _body_document(input_kind: str) -> dict[str, Any]:
    text, image = {"type": "string"}, {"type": "string", "format": "binary"}
    raw, key = (
        ({"application/octet-stream": image}, "image")
        if input_kind == ImageSpec.kind
        else ({"text/plain": text}, "text")
    )
    one = {"type": "object", "required": [key], "properties": {key: text}}
    several = {"type": "array", "items": {"anyOf": [text, one]}, "minItems": 1, "maxItems": MAX_INPUTS}
    form = {"type": "object", "additionalProperties": image}
    kinds = {**raw, "application/json": {"anyOf": [one, several]}, "multipart/form-data": form}
    return {"requestBody": {"required": True, "content": {kind: {"schema": kinds[kind]} for kind in kinds}}}
