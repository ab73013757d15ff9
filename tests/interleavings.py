"""Random steps of the app, of Salesforce, of polls and of the worker, and what a settled receiver may hear of them."""

import random
from collections.abc import Iterator
from typing import Any

from hc_signals.models import Delivery
from hc_signals.testing import SalesforceOrg
from hc_signals.testing.salesforce_org import Poll, Writes
from tests.conftest import deliver
from tests.sfdc.models import Everything


def created(org: SalesforceOrg, count: int, **values: Any) -> list[dict[str, Any]]:
    sfids = org.heroku._next_sfids(Everything, count)
    rows = [{"sfid": sfid, **org.heroku._stamps(), **org.heroku._columns(Everything, values)} for sfid in sfids]
    with org.heroku._as_heroku_connect():
        org.heroku._copy_rows(Everything, rows)
    deliver()
    return rows


def make_due() -> None:
    Delivery.objects.filter(state="retry").update(next_attempt_at="2020-01-01T00:00Z")


class History:
    """What happened to one record, in order, and what a settled receiver has heard of it."""

    COLUMNS = ("text", "phone")

    def __init__(self, sfid: str, row_id: int) -> None:
        self.sfid, self.row_id = sfid, row_id
        self.values: dict[str, list[str | None]] = {name: [None] for name in self.COLUMNS}
        """In Salesforce, one after the other."""
        self.writes: list[tuple[int, str, str]] = []
        """Of the app: when, which field, which value."""
        self.applied: dict[str, int] = {}
        """By a value that the app has written: its place in ``values``."""
        self.heard: list[tuple[int, str, dict[str, str | None]]] = []
        self.deleted_at: int | None = None
        """When the app deleted the row, if Salesforce has not refused that."""
        self.poll: Any = None
        self.answers: list[Writes] = []
        self.steps: list[str] = []

    def faults(self) -> Iterator[str]:
        """Yield what a settled receiver should not have heard, and what it should have."""
        for at, kind, values in self.heard:
            if kind != "DELETE" and self.deleted_at is not None and self.deleted_at < at:
                yield f"{kind} of a record that the app had deleted"
            for name, value in values.items():
                for written, field, of_app in self.writes:
                    if kind == "DELETE" or field != name or written > at or of_app not in self.applied:
                        continue
                    if value in self.values[name] and self.values[name].index(value) < self.applied[of_app]:
                        yield f"{name} = {value} was heard at {at}, and the app had written {of_app} at {written}"
        if self.deleted_at is None:
            for name in self.COLUMNS:
                final = self.values[name][-1]
                if final is not None and final not in self.applied:  # Salesforce has made it
                    last = next((values[name] for *_, values in reversed(self.heard) if name in values), None)
                    if last != final:
                        yield f"{name} = {final} was not heard; the last value was {last}"


class Interleaving:
    """Random steps of the app, of Salesforce, of polls and of the worker, on many records at one time."""

    def __init__(self, org: SalesforceOrg, chance: random.Random, count: int) -> None:
        self.org, self.chance, self.at = org, chance, 0
        self.histories: dict[str, History] = {}
        self.count = count
        self.polled: list[Poll] = []
        self.answered: list[Writes] = []

    def begin(self) -> None:
        """Make the records."""
        rows = created(self.org, self.count)
        ids = dict(Everything.objects.filter(sf_id__in=[row["sfid"] for row in rows]).values_list("sf_id", "pk"))
        self.histories = {sfid: History(sfid, pk) for sfid, pk in ids.items()}
        self.by_row = {history.row_id: history for history in self.histories.values()}

    def hear(self, instance: Everything, event: Any, **kwargs: Any) -> None:
        self.at += 1
        history = self.histories[event.record_id]
        heard_now = [n for n in History.COLUMNS if event.change_type != "UPDATE" or n in event.changed_fields]
        history.heard.append((self.at, event.change_type, {name: getattr(instance, name) for name in heard_now}))
        history.steps.append(f"{self.at} heard {history.heard[-1][1:]}")

    def save(self, record: dict[str, Any]) -> None:
        """A flow of Salesforce: it changes some values when a record is saved. Note the values."""
        history = self.histories.get(record["sfid"])
        for name in History.COLUMNS if history else ():
            column = f"{name}__c"
            value, values = record[column], history.values[name]  # type: ignore[union-attr]
            if value == values[-1]:
                continue
            if value.startswith("app"):
                history.applied[value] = len(values)  # type: ignore[union-attr]
            if self.chance.random() < 0.1:
                record[column] = f"{value}~"
            values.append(record[column])

    def step(self, history: History) -> None:
        """Do one random step on one record."""
        self.at += 1
        kind, name = self.chance.random(), self.chance.choice(History.COLUMNS)
        if kind < 0.25 and history.deleted_at is None:
            value = f"app {self.at}"
            found = Everything.objects.filter(pk=history.row_id).update(**{name: value})
            if found:
                history.writes.append((self.at, name, value))
                history.steps.append(f"{self.at} app writes {name} = {value}")
        elif kind < 0.37 and self.org.record(Everything, history.sfid):
            self.org.edit(Everything, history.sfid, **{name: f"edit {self.at}"})
            history.steps.append(f"{self.at} edit of {name}")
        elif kind < 0.62 and history.poll is None:
            history.poll = self.org.poll(Everything, history.sfid)
            history.steps.append(f"{self.at} poll reads {self.org.record(Everything, history.sfid) and history.values}")
        elif kind < 0.87 and history.poll is not None:
            self.polled.append(history.poll)
            history.poll = None
            history.steps.append(f"{self.at} poll writes")
        elif kind < 0.95 and history.answers:
            self.answered.append(history.answers.pop(0))
            history.steps.append(f"{self.at} answer")
        elif kind > 0.99 and history.deleted_at is None and not history.answers:
            Everything.objects.filter(pk=history.row_id).delete()
            history.deleted_at = self.at
            history.steps.append(f"{self.at} app deletes")

    def take(self) -> None:
        """Let Salesforce have the app's writes; it answers each record in its own time, and refuses some writes."""
        writes = self.org.take_writes(lambda model, row_id: "REFUSED" if self.chance.random() < 0.1 else "")
        for write in writes.taken:
            history = self.by_row[write.row_id]
            history.answers.append(Writes(self.org.heroku, [write]))
            history.steps.append(f"{self.at} Salesforce takes {write.action} {write.values} {write.refusal}")
            if write.refusal and write.action == "DELETE":
                history.deleted_at = None

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            for history in self.histories.values():
                self.step(history)
            self.write()
            if self.chance.random() < 0.4:
                self.take()
            if self.chance.random() < 0.7:
                deliver()
            if self.chance.random() < 0.2:
                make_due()

    def write(self) -> None:
        """Write what polls have read, and Salesforce's answers, of this round: a batch each."""
        records = {sfid: record for poll in self.polled for sfid, record in poll.records.items()}
        Poll(self.org.heroku, Everything, records).write()
        Writes(self.org.heroku, [write for writes in self.answered for write in writes.taken]).answer()
        self.polled, self.answered = [], []

    def finish(self) -> None:
        """Let everything arrive."""
        self.take()
        for history in self.histories.values():
            if history.poll is not None:
                self.polled.append(history.poll)
            self.answered += history.answers
        self.write()
        deliver()
        self.org.poll(Everything, *self.histories).write()
        before = -1
        while before != (before := Delivery.objects.count()):
            for _ in range(4):
                deliver()
                make_due()
