"""Counts and durations of a server's requests, in Prometheus text format at /metrics."""

from __future__ import annotations

import time

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


class Metrics:
    """The counters of a server. Labels have only known values, so that clients cannot create many of them."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        labels = ("method", "path", "status")
        self.requests = Counter("dlkit_requests", "Requests that were answered.", labels, registry=registry)
        self.seconds = Histogram(
            "dlkit_request_seconds", "From a request's headers to the end of its response.", ("path",),
            registry=registry,
        )  # fmt: skip
        self.inputs = Counter("dlkit_inputs", "Images or texts that were answered.", registry=registry)
        self.errors = Counter("dlkit_errors", "Errors, by dlkit's exit code.", ("code",), registry=registry)

    def response(self) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class MetricsMiddleware:
    """Middleware that counts and times the requests of an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, path = time.perf_counter(), scope["path"] if scope["path"] in self.paths else "other"
        method = scope["method"] if scope["method"] in METHODS else "other"

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(method, path, message["status"]).inc()
            await send(message)

        try:
            await self.app(scope, receive, send_and_count)
        finally:
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)
