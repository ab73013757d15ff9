"""Shared by the Hypothesis state machines: the number of examples, connections for writers, and schedules.

A machine steps real connections one after the other, so the order of its steps is all that a run depends on. A failing
run writes this order, its schedule, into a file; ``make schedule FILE=…`` repeats it.
"""

import inspect
import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg
import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

SCHEDULES = Path(__file__).parents[2] / "build" / "schedules"
KNOWN = Path(__file__).parent / "schedules"
"""Schedules that the right reader or bell must pass. Those of the reader have found a wrong one."""
Schedule = list[tuple[str, dict[str, Any]]]
"""The names of steps, with their arguments."""
Method = TypeVar("Method", bound=Callable[..., Any])

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "0"))
"""Random examples per machine; 0: the same few every time."""


def machine_settings(examples: int, steps: int, shrink: bool = bool(EXAMPLES)) -> settings:
    """Return the settings of a run; ``shrink`` reduces a failure to its smallest form, which takes minutes."""
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


def new_connection() -> "psycopg.Connection[Any]":
    """Return an autocommit connection to the test database that counts as Heroku Connect's."""
    values = {k: v for k, v in connection.get_connection_params().items() if k not in ("cursor_factory", "context")}
    opened: psycopg.Connection[Any] = psycopg.connect(**values, autocommit=True)
    opened.execute("SET xmlbinary = 'hex'")
    return opened


class ScheduledMachine(RuleBasedStateMachine):
    """A machine that notes its steps."""

    last: ClassVar["ScheduledMachine"]
    """The machine that was made last: of Hypothesis's runs the smallest one that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule = []
        self.is_in_step = False
        ScheduledMachine.last = self


def scheduled(**strategies: Any) -> Callable[[Method], Method]:
    """Make a method a rule of Hypothesis that is noted in the schedule; a step that another one calls is not."""

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method)

        @wraps(method)
        def noted(self: ScheduledMachine, *given: Any, **named: Any) -> Any:
            if self.is_in_step:
                return method(self, *given, **named)
            arguments = signature.bind(self, *given, **named).arguments
            self.schedule.append((method.__name__, {k: v for k, v in arguments.items() if k != "self"}))
            self.is_in_step = True
            try:
                return method(self, *given, **named)
            finally:
                self.is_in_step = False

        decorated: Any = rule(**strategies)(noted)
        return decorated  # type: ignore[no-any-return]

    return decorate


def run(machine: type[ScheduledMachine], chosen: settings, file: Path | None = None) -> None:
    """Run a machine. A failure names the file with its schedule, the shortest that fails so.

    Args:
        file: default: one per machine in SCHEDULES.
    """
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except AssertionError as error:
        schedule = shortened(machine, ScheduledMachine.last.schedule, _kind(error))
        name = file or SCHEDULES / f"{machine.__mro__[1].__name__}.json"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(json.dumps({"machine": machine.__mro__[1].__name__, "steps": schedule}))
        error.add_note(f"`make schedule FILE={name}` repeats it: {len(schedule)} steps.")
        raise


def repeat(machine: type[ScheduledMachine], schedule: Schedule) -> str:
    """Do the steps of a schedule, and whatever the machine does at its end; return the kind of failure, or nothing."""
    repeated, kind = machine(), ""
    try:
        for name, arguments in schedule:
            getattr(repeated, name)(**arguments)
    except AssertionError as error:
        kind = _kind(error)
    try:
        repeated.teardown()
    except AssertionError as error:
        kind = kind or _kind(error)
    return kind


def steps_of(file: Path) -> Schedule:
    """Return the schedule in a file."""
    steps: Schedule = json.loads(file.read_text())["steps"]
    return steps


def schedules_of(machine: str) -> list[Any]:
    """Return the KNOWN schedules of a machine, and the file that the environment variable SCHEDULE names."""
    given = [Path(os.environ["SCHEDULE"])] if os.environ.get("SCHEDULE") else []
    found = [(file, json.loads(file.read_text())) for file in (*sorted(KNOWN.glob("*.json")), *given)]
    return [pytest.param(each["steps"], id=file.stem) for file, each in found if each["machine"] == machine]


def shortened(machine: type[ScheduledMachine], schedule: Schedule, kind: str) -> Schedule:
    """Leave steps out, many at a time and then single ones, as long as the schedule fails in this way."""
    size = len(schedule)
    while size:
        before, start = len(schedule), 0
        while start < len(schedule):
            shorter = schedule[:start] + schedule[start + size :]
            if repeat(machine, shorter) == kind:
                schedule = shorter
            else:
                start += size
        if size > 1 or len(schedule) == before:
            size //= 2
    return schedule


def _kind(error: AssertionError) -> str:
    return str(error).partition(":")[0].partition("\n")[0]
