"""Spans of OpenTelemetry: one per page in which a receiver was called, one per receiver call. No record's contents.

Needs opentelemetry-api (extra ``otel``); without a tracer provider of the project's there is nothing to tell it to.
"""

import time
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode

from hc_signals import __version__
from hc_signals.dispatch import receiver_path
from hc_signals.listeners import SIGNALS
from hc_signals.observing import Observer, Receiver, Tally, here

_NAMES = {id(signal): name for name, signal in SIGNALS.items()}


def is_set_up() -> bool:
    """Tell whether the project has set a tracer provider; without one, spans would be made for nobody."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class Tracing(Observer):
    """Makes the spans. A page that called nobody has none: a worker looks often and finds nothing."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("hc_signals", __version__)
        self._pages: dict[int, tuple[Tally, int, Span | None]] = {}
        """By the thread's work: tally, begin in nanoseconds, span once there is one."""
        self._calls: dict[int, list[tuple[Span, Any]]] = {}

    def page_begins(self, tally: Tally) -> None:
        """Remember when."""
        self._pages[id(here())] = tally, time.time_ns(), None

    def page_ends(self, tally: Tally, error: BaseException | None) -> None:
        """End the span of the page, if it has one."""
        _, _, span = self._pages.pop(id(here()), (tally, 0, None))
        if span is None:
            return
        span.set_attribute("hc_signals.changes", len(tally.delivered))
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end()

    def call_begins(self, receiver: Receiver, signal: Any, named: dict[str, Any]) -> None:
        """Begin a span; what the receiver traces itself lies inside it."""
        event = named.get("event")
        attributes = {
            "hc_signals.receiver": receiver_path(receiver),
            "hc_signals.signal": _NAMES.get(id(signal), "?"),
            "hc_signals.model": named["sender"]._meta.label,
        }
        if event is not None:
            attributes["hc_signals.change_type"] = event.change_type
            attributes["hc_signals.change_origin"] = event.change_origin
        elif "events" in named:
            attributes["hc_signals.changes"] = len(named["events"])
        span = self._tracer.start_span("hc_signals.receiver", self._page_context(), attributes=attributes)
        token = context.attach(trace.set_span_in_context(span))
        self._calls.setdefault(id(here()), []).append((span, token))

    def _page_context(self) -> Any:
        """Return the context of the page's span, which begins with its first call."""
        if id(here()) not in self._pages:
            return None
        tally, began, span = self._pages[id(here())]
        if span is None:
            attributes: dict[str, Any] = {"hc_signals.consumer": tally.consumer, "hc_signals.shard": tally.shard}
            span = self._tracer.start_span("hc_signals.page", attributes=attributes, start_time=began)
            self._pages[id(here())] = tally, began, span
        return trace.set_span_in_context(span)

    def call_ends(self, receiver: Receiver, error: BaseException | None) -> None:
        """End the span; of an error only the class, because its message may hold a customer's data."""
        span, token = self._calls[id(here())].pop()
        context.detach(token)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end()
