"""The overview in the admin: its view, and the part that its script fetches again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from hc_signals.admin.base import ReadOnlyAdmin, database
from hc_signals.admin.overview import live
from hc_signals.admin.overview.charts import Charts, Present, charts
from hc_signals.admin.overview.drawing import Drawing, draw
from hc_signals.admin.overview.frame import PERIODS, Period
from hc_signals.admin.overview.health import Health, health
from hc_signals.admin.overview.kept import Kept
from hc_signals.admin.overview.words import with_code
from hc_signals.conf import get_conf
from hc_signals.log import minutes
from hc_signals.models import Minute
from hc_signals.observability.findings import E, Finding, W
from hc_signals.observability.runbook import section
from hc_signals.observability.survey import limited
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown

EVERY_SECONDS = 15
"""Seconds between two readings of an open page."""
PAGES = {
    "Changes": ("change", "changelist"),
    "Timeline of a record": ("change", "timelines"),
    "Deliveries": ("delivery", "changelist"),
    "Consumers and shards": ("position", "changelist"),
    "Capture triggers": ("connectedtable", "changelist"),
}
"""The other pages by the name of their link: the model whose view permission they need, and the page."""


@dataclass(frozen=True)
class Choice:
    """What the address chooses."""

    period: Period
    consumer: str
    """Empty: the configured one."""

    @classmethod
    def of(cls, request: HttpRequest) -> "Choice":
        """Read the address; what it does not say, or says wrongly, is the default."""
        hours = request.GET.get("hours", "1")
        period = PERIODS.get(int(hours) if hours.isdecimal() and len(hours) < 9 else 1, PERIODS[1])
        return cls(period, request.GET.get("consumer", ""))

    def query(self, **other: Any) -> str:
        """Return the query of an address with this choice, or with another value for one of its parts."""
        chosen: dict[str, Any] = {"hours": self.period.hours, "consumer": self.consumer} | other
        return "?" + urlencode({name: value for name, value in chosen.items() if value})


@admin.register(Minute)
class MinuteAdmin(ReadOnlyAdmin):
    """The page needs the view permission; it shows no value of a record but in the live tail."""

    # Each check has its own transaction, and one that fails must not end the others.
    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the whole page, also if the tables are missing: the findings say so."""
        self._check(request)
        self.refuse_writing(request)
        return self.page(request, "overview", **self._context(request))

    @transaction.non_atomic_requests
    def part_view(self, request: HttpRequest) -> HttpResponse:
        """Return the part of the page that changes."""
        self._check(request)
        return TemplateResponse(request, "admin/hc_signals/overview_part.html", self._context(request))

    @transaction.non_atomic_requests
    def live_view(self, request: HttpRequest) -> HttpResponse:
        """Return the changes since the place that the page names."""
        self._check(request)
        using = database()
        try:
            with limited(using):
                context = live.answer(using, request.GET.get("place", ""), request.user, self.admin_site)
        except ValueError as error:
            return HttpResponseBadRequest(str(error), content_type="text/plain")
        except DatabaseError as error:
            return HttpResponse(one_line(error), content_type="text/plain", status=HTTPStatus.SERVICE_UNAVAILABLE)
        return TemplateResponse(request, "admin/hc_signals/overview_changes.html", context).render()

    def get_urls(self) -> list[URLPattern]:
        """Add the addresses that the script asks."""
        views = {"part": self.part_view, "live": self.live_view}
        own = [
            path(
                f"{name}/", self.admin_site.admin_view(never_cache(require_GET(view))), name=f"hc_signals_minute_{name}"
            )
            for name, view in views.items()
        ]
        return own + super().get_urls()

    def _check(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        using, choice = database(), Choice.of(request)
        found, configured = health(using), get_conf().CONSUMER
        consumers = {configured, *_names(found)}
        consumer = choice.consumer if choice.consumer in consumers else configured
        drawings = _drawings(using, choice.period, consumer, found)
        return {
            "health": found,
            "period": _period(choice.period),
            **_described(found),
            "read_at": shown(found.at),
            "choice": choice,
            "consumer": consumer,
            "drawings": drawings,
            "no_charts": isinstance(drawings, str),
            "workers": found.facts("consumer", consumer=consumer).get("workers"),
            "periods": [
                (_period(each), choice.query(hours=each.hours), each == choice.period) for each in PERIODS.values()
            ],
            "consumers": _consumers(choice, consumer, consumers),
            "links": list(self._links(request)),
            "part_url": self._url("minute_part") + choice.query(),
            "every_seconds": EVERY_SECONDS,
            "live_url": self._url("minute_live"),
            "live_seconds": live.EVERY_SECONDS,
        }

    def _links(self, request: HttpRequest) -> Iterable[tuple[str, str]]:
        for name, (model, page) in PAGES.items():
            if request.user.has_perm(f"hc_signals.view_{model}"):
                yield name, self._url(f"{model}_{page}")

    def _url(self, name: str) -> str:
        return reverse(f"admin:hc_signals_{name}", current_app=self.admin_site.name)


_kept: Kept[Charts | str] = Kept()


def _drawings(using: str, period: Period, consumer: str, found: Health) -> list[Drawing] | str:
    """Return the charts, or a sentence that says why there are none."""
    key, seconds = (using, period, consumer), period.kept_seconds
    result = _kept.get(key, lambda: _read(using, period, consumer, found), seconds)
    return result if isinstance(result, str) else [draw(each, result, period) for each in result.charts]


def _described(found: Health) -> dict[str, Any]:
    """Return the problems of a database as the template shows them."""
    errors, warnings = (sum(each.verdict is verdict for each in found.findings) for verdict in (E, W))
    counts = ((errors, "error"), (warnings, "warning"))
    urgent = found.urgent
    return {
        "errors": errors,
        "counted": " and ".join(f"{count} {noun}{pluralize(count)}" for count, noun in counts if count),
        "urgent": urgent and {"name": urgent.name, "text": urgent.text, "remedy": with_code(urgent.remedy)},
        "problems": [_problem(group) for group in found.problems],
    }


def _problem(group: Sequence[Finding]) -> dict[str, Any]:
    one = group[0]
    texts = [f"{each.name}: {each.text}" for each in group]
    about = {"verdict": one.verdict, "key": one.problem, "remedy": with_code(one.remedy), "texts": texts}
    return about | {"pieces": list(_pieces(section(one.problem)))}


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the paragraphs of a section of the runbook without its name, and whether each one is a table or a block."""
    for piece in text.split("\n\n")[1:]:
        is_block = piece.startswith(("|", "```"))
        yield is_block, piece if is_block else with_code(piece)


def _read(using: str, period: Period, consumer: str, found: Health) -> Charts | str:
    mb = found.facts("log").get("mb")
    present = Present(found.at, found.facts("consumer", consumer=consumer).get("oldest_seconds"), mb and mb * 2**20)
    try:
        if not minutes.exists(using):
            return "The table of the figures does not exist yet; run manage.py migrate hc_signals."
        with limited(using):
            return charts(using, period, consumer, present)
    except DatabaseError as error:
        return f"The figures could not be read: {one_line(error)}"


def _period(period: Period) -> str:
    return "1 hour" if period.hours == 1 else f"{period.hours} hours"


def _periods(choice: Choice) -> list[tuple[str, str, bool]]:
    return [(_period(each), choice.query(hours=each.hours), each == choice.period) for each in PERIODS.values()]


def _names(found: Health) -> list[str]:
    return [each.facts["consumer"] for each in found.findings if each.name == "consumer" and "consumer" in each.facts]


def _consumers(choice: Choice, chosen: str, names: set[str]) -> list[tuple[str, str, bool]]:
    """Return the links to the charts of each consumer; none if there is one consumer."""
    if names <= {chosen}:
        return []
    return [(name, choice.query(consumer=name), name == chosen) for name in sorted(names)]


def forget() -> None:
    """Forget the charts that are kept: for tests."""
    _kept.clear()
