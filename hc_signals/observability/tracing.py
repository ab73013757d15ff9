"""Spans of OpenTelemetry: one per page that calls a receiver, one per call, both without values of records.

Needs opentelemetry-api (extra ``otel``).
"""

import threading
import time
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from hc_signals import __version__
from hc_signals.delivery.pulse import Observer, Tally
from hc_signals.delivery.routing import SIGNALS

_NAMES = {id(signal): name for name, signal in SIGNALS.items()}


def is_set_up() -> bool:
    """Return whether the project has set a tracer provider, which gets the spans."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class _Thread(threading.local):
    """The page and the calls of one worker's thread."""

    def __init__(self) -> None:
        self.tally: Tally | None = None
        self.began = 0
        """When the page began, in nanoseconds."""
        self.page: Span | None = None
        self.calls: list[tuple[Span, Any]] = []


class Tracing(Observer):
    """Makes the spans. A page without a call has none, because a worker often reads an empty page."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer or trace.get_tracer("hc_signals", __version__)
        self._here = _Thread()

    def page_begins(self, tally: Tally) -> None:
        """Store the time."""
        self._here.tally, self._here.began, self._here.page = tally, time.time_ns(), None

    def page_ends(self, tally: Tally, error: BaseException | None) -> None:
        """End the span of the page, if it has one."""
        span, self._here.tally, self._here.page = self._here.page, None, None
        if span is None:
            return
        span.set_attribute("hc_signals.changes", len(tally.delivered))
        _end(span, error)

    def call_begins(self, receiver: str, signal: Any, named: dict[str, Any]) -> None:
        """Begin a span; spans of the receiver lie inside it."""
        attributes = {
            "hc_signals.receiver": receiver,
            "hc_signals.signal": _NAMES.get(id(signal), "?"),
            "hc_signals.model": named["sender"]._meta.label,
        }
        if (event := named.get("event")) is not None:
            attributes["hc_signals.change_type"] = event.change_type
            attributes["hc_signals.change_origin"] = event.change_origin
        elif "events" in named:
            attributes["hc_signals.changes"] = len(named["events"])
        span = self._tracer.start_span("hc_signals.receiver", self._page_context(), attributes=attributes)
        self._here.calls.append((span, context.attach(trace.set_span_in_context(span))))

    def _page_context(self) -> Any:
        """Return the context of the page's span, which the first call makes."""
        tally = self._here.tally
        if tally is None:
            return None
        if self._here.page is None:
            named: dict[str, Any] = {"hc_signals.consumer": tally.consumer, "hc_signals.shard": tally.shard}
            self._here.page = self._tracer.start_span("hc_signals.page", attributes=named, start_time=self._here.began)
        return trace.set_span_in_context(self._here.page)

    def call_ends(self, receiver: str, error: BaseException | None) -> None:
        """End the span. It gets the class of an error, not its message, which may quote values."""
        span, token = self._here.calls.pop()
        context.detach(token)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
        _end(span, error)


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.end()
