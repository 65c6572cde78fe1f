"""What the metrics of every HTTP server of ours have in common: registry, page, HTTP requests.

Labels are bounded: no path, id or tenant ever is one.
"""

import platform
import time
from collections.abc import Iterable

from fastapi import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch_api import __version__

LATENCY_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""From what needs no thinking to a long answer, each bound about twice the one before: a quantile
that is read off them is wrong by less than that, wherever it lies."""

_METHODS = frozenset({"GET", "POST", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"})
_OTHER = "other"
_UNTIMED = frozenset({"/events"})
"""It ends when somebody closes a page of the dashboard, which tells nothing of the server."""
_STATUS_OF_NO_ANSWER = 499
"""As nginx has it: the client went away before there was one."""


def new_registry() -> CollectorRegistry:
    """With the process's own memory, CPU time and open files in it."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    build = Gauge(
        "batch_api_build_info",
        "Always 1; the labels tell what runs.",
        ["version", "python"],
        registry=registry,
    )
    build.labels(__version__, platform.python_version()).set(1)
    return registry


def exposition(registry: CollectorRegistry, families: Iterable[Metric] = ()) -> Response:
    """In Prometheus' text format; with what was just looked up."""
    page = generate_latest(registry) + generate_latest(_Found(families))
    return Response(page, headers={"content-type": CONTENT_TYPE_LATEST})


class _Found(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class HttpMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "batch_api_http_requests",
            "HTTP requests by the route's template; `other`: there is no such route.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "batch_api_http_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._first_event_seconds = Histogram(
            "batch_api_http_first_event_seconds",
            "From a request's head to the first event of a streamed answer.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )

    def began_to_stream(self, scope: Scope, *, seconds: float) -> None:
        if (route := _route(scope)) not in _UNTIMED:
            self._first_event_seconds.labels(route).observe(seconds)

    def ended(self, scope: Scope, status: int, *, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        route = _route(scope)
        self._requests.labels(method, route, status).inc()
        if route not in _UNTIMED:
            self._seconds.labels(method, route).observe(seconds)


class Counted:
    """Middleware: counts and times each request."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status, streams = _STATUS_OF_NO_ANSWER, False

        async def send_and_look(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status, streams = message["status"], _is_stream(message)
            elif streams and message.get("body"):
                streams = False
                self._metrics.began_to_stream(scope, seconds=time.monotonic() - began)
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            self._metrics.ended(scope, status, seconds=time.monotonic() - began)


def _is_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )


def _route(scope: Scope) -> str:
    """The template of the path, which the router left in the scope."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else _OTHER
