"""Sends one event to its receivers, one by one."""

from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.dispatch import Signal

from hc_signals.delivery.calls import Call, StoreFailure
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.identity import Receivers
from hc_signals.delivery.isolation import careful
from hc_signals.delivery.isolation.call import isolated
from hc_signals.delivery.isolation.lost import IsolationLost
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.delivery.project_code import ends_program, nothing_forked
from hc_signals.delivery.pulse import Pulse


@dataclass(frozen=True)
class Failure:
    """A receiver that raised, and its error."""

    receiver: str
    error: BaseException


def send(
    signal: Signal,
    receivers: Receivers,
    *,
    using: str,
    change: int,
    isolation: Isolation,
    pulse: Pulse,
    store_failure: StoreFailure,
    attempt: int = 1,
    record: Any = None,
    marks: Marks | None = None,
    **named: Any,
) -> list[Failure]:
    """Call the receivers one by one; return those that failed, whose writes are rolled back.

    Args:
        using: database alias.
        change: id of the change; of the first one, if the event is about several.
        isolation: of the page.
        pulse: of the calling thread.
        store_failure: is called for a receiver that turns out to have failed after it has returned.
        attempt: number of the attempt, 1 for the first.
        record: table and record of the change; None for several.
        marks: marks each call before it is made, after a process has died; None: no call is marked.
        named: the other arguments of the receivers.

    Raises:
        IsolationLost: everything that the page wrote is lost: see :meth:`~.isolation.careful.Caution.until_isolated`.
    """
    failures = []
    for each in receivers:
        receiver = each.name
        call = Call(receiver, change, attempt, record, store_failure)
        if refusal := careful.refusal(call) or (marks and marks.begin(call)):
            failures.append(Failure(receiver, refusal))
            continue
        failed: BaseException | None = None
        pulse.begin_call(receiver, signal, named)
        try:
            with isolated(isolation, call, in_advance=careful.needs_savepoint(receiver)), nothing_forked():
                function = async_to_sync(each.call) if each.is_async else each.call
                function(signal=signal, using=using, **named)
        except IsolationLost as error:
            failed = error
            raise
        # A receiver may raise anything, also what is meant to end a program. Only Ctrl-C may end this one.
        except BaseException as error:
            failed = error
            if ends_program(error):
                raise
            failures.append(Failure(receiver, error))
        finally:
            pulse.end_call(receiver, failed)
        isolation.store_failed()
    return failures
