"""What 1, 50 and 300 connected models cost a worker: at its start, and each look of its watch at capture.

A model has 25 columns. The watch looks each ``WATCH_SECONDS``. At the start it also has to generate the source of each
capture function, to compare it with the installed one.
"""

import time

from django.db import connection

from benchmarks.figures.capture import made_table
from benchmarks.options import Options
from benchmarks.rows import Row, alternate, say
from benchmarks.server import Server
from hc_signals.capture import installed, status
from hc_signals.capture.drift import check_tables
from hc_signals.capture.install import install_capture
from hc_signals.db import models as hc_models

NUMBERS = (1, 50, 300)
LIMIT = 40.0
"""Most milliseconds with 300 models."""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    say(f"models: creating {NUMBERS[-1]} tables")
    models = [_captured(number) for number in range(NUMBERS[-1])]
    runs = {}
    for number in NUMBERS:
        runs[f"start, {number}"] = lambda chosen=models[:number]: _milliseconds(chosen, is_start=True)  # type: ignore[misc]
        runs[f"look, {number}"] = lambda chosen=models[:number]: _milliseconds(chosen)  # type: ignore[misc]
    least = {name: min(found) for name, found in alternate("models", options, runs, unit="ms").items()}
    rows = []
    for number in NUMBERS:
        for name, what in (("look", "a look of the watch"), ("start", "the first look of a new process")):
            measured, limit = least[f"{name}, {number}"], LIMIT if number == NUMBERS[-1] else None
            shown = f"{measured:.1f} ms"
            rows.append(Row("models", f"{number} models, {what}", shown, "", measured, "ms", at_most=limit))
    return rows


def _captured(number: int) -> type[hc_models.HerokuConnectModel]:
    model = made_table(f"many_{number}", 25, 1)
    install_capture(model, "default")
    return model


def _milliseconds(models: list[type[hc_models.HerokuConnectModel]], *, is_start: bool = False) -> float:
    """Return how long one look takes; ``is_start``: nothing is remembered of earlier ones."""
    if is_start:
        for remembered in (installed._body_digest, status._layout, status._absent_columns):
            remembered.cache_clear()
        connection.close()  # the sources that its session has read are forgotten too
        connection.ensure_connection()
    began = time.perf_counter()
    found = check_tables(models, "default")
    seconds = time.perf_counter() - began
    if any(check.status.state != "installed" for check in found):
        raise RuntimeError("a table is not captured")
    return seconds * 1e3
