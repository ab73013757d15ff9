"""Random traffic: an endless series of steps, such as a poll, an edit or a reload."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hc_signals.testing.app_writes import AppWrites
from hc_signals.testing.inventing import NoValueLeftError
from hc_signals.testing.rows import Model
from hc_signals.testing.tables import Tables

POLL_SIZE = 300
"""Most records per poll. Heroku Connect's log shows hundreds of records per statement."""


@dataclass(frozen=True)
class Step:
    """One step of :meth:`.HerokuConnect.play`."""

    action: str
    model: Model
    records: int
    """Number of rows that the step wrote, unchanged ones included."""


class Traffic(AppWrites, Tables):
    """Chooses random steps and does them."""

    ACTIONS = {"poll": 4, "edit": 12, "app": 3, "delete": 2, "bulk": 1, "reload": 1, "recreate": 1, "columns": 1}
    """All kinds of step, each with its weight in the random choice."""
    EVERYDAY = ("poll", "edit", "app", "delete", "bulk")
    """The kinds of step that leave the tables themselves as they are."""

    def play(self, actions: Sequence[str] = EVERYDAY, poll_size: int = POLL_SIZE) -> Iterator[Step]:
        """Do random steps without end; leave the loop to stop.

        Args:
            actions: the kinds of step; default: EVERYDAY.
            poll_size: most records per poll or bulk load.
        """
        weights = [self.ACTIONS[action] for action in actions]
        while True:
            action = self.chance.choices(list(actions), weights)[0]
            model = self.chance.choice(self.models)
            if action == "app" and getattr(model, "sf_access", "") != "read_write":
                action = "edit"
            try:
                records = int(getattr(self, f"_play_{action}")(model, poll_size))
                if not records:  # there was nothing to edit or delete
                    action, records = "create", len(self.create(model))
            except NoValueLeftError:  # a unique field with few values is used up: delete some records
                action, records = "delete", self._play_delete(model, poll_size)
                if not records:
                    raise
            yield Step(action, model, records)

    def _play_poll(self, model: Model, poll_size: int) -> int:
        """Poll a batch of edited, unchanged and new records."""
        size = self.chance.randint(1, poll_size)
        known, new = self._some(model, size), max(1, size // 10)
        invented = self._invented(model, len(known) + new)
        records = [
            {"sf_id": sfid, **(record if self.chance.random() < 0.7 else {})}
            for sfid, record in zip(known, invented, strict=False)
        ]
        sfids = self._next_sfids(model, new)
        records += [{"sf_id": sfid, **record} for sfid, record in zip(sfids, invented[len(known) :], strict=True)]
        self.poll(model, records)
        return len(records)

    def _play_edit(self, model: Model, poll_size: int) -> int:
        for sfid in self._some(model, 1):
            (record,) = self._invented(model, 1)
            name = self.chance.choice(sorted(record)) if record else None
            self.update(model, sfid, **({name: record[name]} if name else {}))
            return 1
        return len(self.create(model))

    def _play_app(self, model: Model, poll_size: int) -> int:
        """Insert as the app does, write the sfid back, poll the echo."""
        self.app_insert(model, **self._invented(model, 1)[0])
        self.send_app_writes()
        return self.echo(model)

    def _play_delete(self, model: Model, poll_size: int) -> int:
        return self.delete(model, *self._some(model, self.chance.randint(1, 3)))

    def _play_bulk(self, model: Model, poll_size: int) -> int:
        return self.bulk_load(model, poll_size)

    def _play_reload(self, model: Model, poll_size: int) -> int:
        return self.reload(model, self.chance.choice(["truncate", "delete"]))

    def _play_recreate(self, model: Model, poll_size: int) -> int:
        return self.recreate_table(model)

    def _play_columns(self, model: Model, poll_size: int) -> int:
        rows = self.add_column(model, "simulated__c")
        self.drop_column(model, "simulated__c")
        return rows
