"""The findings of hc_status, one sentence about all of them, and the figures of now.

``judge.examine`` makes the findings. Heroku Connect's API may take a minute to answer: a thread asks it, and the page
shows the newest answer.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from django.db import Error

from hc_signals.admin.overview.kept import Kept
from hc_signals.conf import get_conf
from hc_signals.observability.findings import Finding, Verdict, finding, most_urgent, worst
from hc_signals.observability.judge import examine
from hc_signals.observability.judge.heroku import Heroku, ask, states
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import now

SECONDS = 12.0
"""After so many seconds no further check begins: Heroku's router ends a request after 30."""
KEPT_SECONDS = 8.0
HEROKU_SECONDS = 60.0
"""Seconds between two questions to Heroku Connect's API."""


@dataclass(frozen=True)
class Health:
    """What hc_status found at one time."""

    at: datetime
    findings: Sequence[Finding]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict."""
        return worst(self.findings)

    @property
    def urgent(self) -> Finding | None:
        """The problem to solve first; None without any."""
        return most_urgent(self.findings)

    @property
    def problems(self) -> list[list[Finding]]:
        """The problems, the errors first; those with the same remedy are together."""
        order = [Verdict.ERROR, Verdict.WARN]
        bad = sorted((each for each in self.findings if each.problem), key=lambda each: order.index(each.verdict))
        return [list(group) for _, group in groupby(bad, key=lambda each: each.problem)]

    @property
    def fine(self) -> list[Finding]:
        """The findings that are no problem."""
        return [each for each in self.findings if not each.problem]

    def facts(self, name: str, **wanted: Any) -> dict[str, Any]:
        """Return the facts of the finding with this name and these facts; none if there is no such finding."""
        found = (each.facts for each in self.findings if each.name == name and each.facts.items() >= wanted.items())
        return dict(next(found, {}))


_kept: Kept[Health] = Kept()


def health(using: str) -> Health:
    """Return what hc_status says of the database, at most KEPT_SECONDS old, with Heroku Connect's newest answer."""
    found = _kept.get(using, lambda: _read(using), KEPT_SECONDS)
    return Health(found.at, [*found.findings, *states(_heroku.answer())])


def _read(using: str) -> Health:
    at = now()
    try:
        found = examine(using, get_conf(), answer=_heroku.answer(), seconds=SECONDS)
        # The answer may be newer than the findings that are kept.
        return Health(at, [each for each in found if each.name != "heroku"])
    except Error as error:
        return Health(at, [finding("server", one_line(error), "not-checked")])


class HerokuAnswer:
    """What Heroku Connect's API says, from a thread that asks it when a page is read."""

    def __init__(self) -> None:
        self._asked_at = self._answered_at = float("-inf")
        self._found = Heroku()
        self.thread = threading.Thread()
        """The one that asks, or asked last."""

    def answer(self) -> Heroku:
        """Return the newest answer, or nothing if there is none of the last minutes; ask if it is time to."""
        present = time.monotonic()
        if present - self._asked_at >= HEROKU_SECONDS:
            self._asked_at = present
            self.thread = threading.Thread(target=self._ask, name="hc_signals-heroku", daemon=True)
            self.thread.start()
        return self._found if present - self._answered_at < 3 * HEROKU_SECONDS else Heroku()

    def _ask(self) -> None:
        self._found = ask()
        self._answered_at = time.monotonic()


_heroku = HerokuAnswer()


def forget() -> None:
    """Read everything again for the next page: for tests."""
    _kept.clear()
