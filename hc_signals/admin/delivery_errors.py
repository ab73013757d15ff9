"""The page that groups failed deliveries by receiver and error, and acts on all that have one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode

from hc_signals.admin.base import READING, database
from hc_signals.admin.records import visible_tables
from hc_signals.admin.text import visible
from hc_signals.delivery import interventions
from hc_signals.delivery.stored import GROUPED, Choice, ErrorGroup, by_error
from hc_signals.models import Delivery
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import age, shown

SECONDS = 15
"""Seconds after which no other piece is begun: Heroku's router ends a request after 30 seconds."""

NOT_CALLED = "(not called yet: the delivery before it is done or discarded)"
"""Shown for deliveries that were parked and have no error yet."""

_CONDITIONS = {"state__exact": "state", "receiver": "receiver", "sender": "sender", "consumer": "consumer"}
"""The conditions of the list that this page keeps, and what :class:`Choice` calls them."""


class _Act(NamedTuple):
    """What a button does."""

    permission: str
    run: Any
    flag: int
    done: str


_ACTS = {
    "retry": _Act("hc_signals.change_delivery", interventions.retry, CHANGE, "are due now; parked ones follow theirs"),
    "discard": _Act("hc_signals.delete_delivery", interventions.discard, DELETION, "are discarded"),
}


class DeliveryErrors:
    """One request for the page. A user without the view permission of a model sees none of its errors."""

    def __init__(self, site_admin: Any, request: HttpRequest) -> None:
        self.admin, self.request = site_admin, request
        self.using = database()

    @staticmethod
    def query_of(params: Mapping[str, str]) -> str:
        """Return the part of a list's address that this page keeps."""
        return urlencode({name: params[name] for name in _CONDITIONS if name in params})

    def answer(self) -> HttpResponse:
        """Return the page; on POST the page that asks for confirmation, or a redirect after the action."""
        return self._groups() if self.request.method in READING else self._act()

    def _choice(self, params: Mapping[str, str]) -> Choice:
        if any("\x00" in value for value in params.values()):
            raise BadRequest("A value contains NUL.")
        given = {name: params[key] for key, name in _CONDITIONS.items() if params.get(key)}
        return Choice(**given, error=params.get("error"))  # type: ignore[arg-type]

    def _seen(self, choice: Choice) -> Any:
        """Return the chosen deliveries whose errors the user may see."""
        found, user = choice.deliveries(self.using), self.request.user
        return found if user.is_superuser else found.filter(table_name__in=visible_tables(user))

    def _groups(self) -> HttpResponse:
        choice, user = self._choice(self.request.GET), self.request.user
        groups = by_error(self._seen(choice))
        total = sum(group.total for group in groups)
        return self._page(
            "delivery_errors",
            groups=[self._described(group) for group in groups],
            total=total,
            is_cut=total >= GROUPED,
            filters=[(name, value) for name, value in vars(choice).items() if value],
            query=self.query_of(self.request.GET),
            acts={name: user.has_perm(act.permission) for name, act in _ACTS.items()},
            is_partial=not user.is_superuser,
        )

    def _described(self, group: ErrorGroup) -> dict[str, Any]:
        conditions = {"receiver": group.receiver, "sender": group.sender}
        return {
            "group": group,
            "error": visible(group.error) or NOT_CALLED,
            "list_query": urlencode(conditions),
            "oldest": f"{shown(group.oldest, zone=False)}, {age(group.oldest)} ago",
            "newest": f"{shown(group.newest, zone=False)}, {age(group.newest)} ago",
        }

    def _act(self) -> HttpResponse:
        params = self.request.POST
        name = params.get("action", "")
        act = _ACTS.get(name)
        if act is None or not self.request.user.has_perm(act.permission):
            raise PermissionDenied
        choice = self._choice({**self.request.GET.dict(), **params.dict()})
        if choice.receiver is None or choice.error is None:
            raise BadRequest("An action needs a receiver and an error.")
        chosen, after = self._seen(choice), _number(params.get("after", ""))
        if "confirmed" not in params:
            return self._ask(name, choice, chosen, after)
        try:
            progress = interventions.in_pieces(act.run, chosen, after=after, seconds=SECONDS)
        except OperationalError as error:
            self._say(f"Nothing was done: {one_line(error)}. Try again.", messages.ERROR)
            return self._ask(name, choice, chosen, after)
        self._record(act, choice, progress.done)
        self._say(f"{progress.done} deliveries {act.done}.", messages.SUCCESS)
        if progress.left:
            self._say(f"{progress.left} are left: the time was up. Go on below.", messages.WARNING)
            return self._ask(name, choice, chosen, progress.after)
        return HttpResponseRedirect(f"{self.request.path}?{self.query_of(self.request.GET)}")

    def _ask(self, name: str, choice: Choice, chosen: Any, after: int) -> HttpResponse:
        count = chosen.filter(pk__gt=after)[: GROUPED + 1].count()
        return self._page(
            "errors_confirm",
            action=name,
            count=count if count <= GROUPED else f"More than {GROUPED}",
            choice=choice,
            error=visible(choice.error or "") or NOT_CALLED,
            after=after,
            command=choice.command(name),
            query=self.query_of(self.request.GET),
        )

    def _page(self, template: str, **context: Any) -> HttpResponse:
        return self.admin.page(self.request, template, **{"title": "Failed deliveries by error"} | context)  # type: ignore[no-any-return]

    def _say(self, text: str, level: int) -> None:
        self.admin.message_user(self.request, text, level)

    def _record(self, act: _Act, choice: Choice, count: int) -> None:
        """Write one entry to the admin's log."""
        user_id: Any = self.request.user.pk
        LogEntry.objects.create(
            user_id=user_id,
            content_type=get_content_type_for_model(Delivery),
            object_repr=f"{count} deliveries to {choice.receiver}: {choice.error}"[:200],
            action_flag=act.flag,
            change_message=f"{count} deliveries {act.done}.",
        )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 19 else 0
