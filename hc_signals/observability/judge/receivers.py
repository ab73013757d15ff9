"""Receivers: who is connected to each model, in the project that looks."""

from collections.abc import Iterator

from hc_signals.conf import Conf
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.observability.findings import Finding, fine, problem
from hc_signals.tables import connected_models

SHOWN = 3
"""Most receivers that a line names."""


def receivers(conf: Conf) -> Iterator[Finding]:
    """Name the receivers of each model's records, of its proxies and multi-table children."""
    models = connected_models()
    listeners = Listeners(Extras.of(conf, models))
    is_any = any(listeners.wanted(model) for model in models)
    for model in models:
        label, names = model._meta.label, sorted(listeners.names(model))
        facts = {"model": label, "receivers": names}
        if listeners.wanted(model):
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            yield fine("receivers", f"{label}: {', '.join(names[:SHOWN])}{more}", **facts)
        elif is_any:
            yield fine("receivers", f"{label}: none, its changes reach no receiver", **facts)
        else:
            yield problem("receivers-none", "receivers", f"{label}: none in this project", **facts)
