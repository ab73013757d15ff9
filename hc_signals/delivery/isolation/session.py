"""What the server's session has of ours, as a value; and the statements that lead from one value to the next.

A check compares the settings of the session with those before the first call. Its functions are in migrations_sql.
"""

from typing import NamedTuple, Self

from hc_signals.delivery.calls import Call
from hc_signals.exceptions import LeftSettingsError
from hc_signals.postgres.errors import message
from hc_signals.postgres.limits import NO_JIT, Limits

NOTE = "CALL public.hc_signals_note_settings()"
CHECK = "CALL public.hc_signals_check_settings()"
RESTORE = "CALL public.hc_signals_restore_settings()"
READ = "SELECT public.hc_signals_settings()"
"""Outside a transaction: its value is for :data:`CHECK_AGAINST`."""
CHECK_AGAINST = "CALL public.hc_signals_check_settings(%s)"
# COMMIT reads a cursor WITH HOLD to its end, and PREPARE TRANSACTION refuses one: either fails while this one is open.
_REFUSE_COMMIT = "DECLARE hc_signals_commit NO SCROLL CURSOR WITH HOLD FOR SELECT public.hc_signals_refuse_commit()"


class Session(NamedTuple):
    """What the server has done for us, or does when it reads the message that is being sent."""

    names: tuple[str, str]
    """Two names of savepoints, used by turns. With one name, a rollback could reach the previous call's savepoint. A
    new name for each call would defeat psycopg's cache of parsed queries."""
    has_savepoint: bool = False
    """The present call has its savepoint."""
    savepoint: str = ""
    """The last savepoint of this transaction; empty before the first one."""
    unchecked: tuple[Call, str] | None = None
    """The last call whose settings are not checked yet, and its id in ``connection.savepoint_ids``."""
    has_project_limits: bool = False
    """The project's time limits are set, and not our own."""
    is_noted: bool = False
    """The settings that receivers have to leave are noted, and COMMIT is refused."""
    is_finishing: bool = False
    """Our next statement is the last one before COMMIT."""

    def making_savepoint(self, limits: Limits | None) -> tuple[list[str], Self]:
        """Return the statements that make the savepoint of the present call, and the session after them."""
        before = [CHECK] * (self.unchecked is not None)
        before += [f"RELEASE SAVEPOINT {self.savepoint}"] * bool(self.savepoint)
        if limits and limits.changed and not self.has_project_limits:
            before.append(limits.project)
        if not self.is_noted:
            before += [NOTE, _REFUSE_COMMIT]
        name = self.names[self.savepoint == self.names[0]]
        after = self._replace(
            has_savepoint=True, savepoint=name, unchecked=None, has_project_limits=True, is_noted=True
        )
        return [*before, f"SAVEPOINT {name}"], after

    def before_own(self, limits: Limits | None, first: str, *, is_nested: bool) -> tuple[list[str], Self]:
        """Return the statements that come before one of our own, and the session after them.

        Args:
            first: sets our own limits, in the first message of a transaction; else empty.
            is_nested: the transaction continues after the page, as a test's does, and gets everything back.
        """
        is_ending_nested = self.is_finishing and is_nested
        before = [CHECK] * (self.unchecked is not None) + [NO_JIT] * bool(first and not is_nested) + [first]
        if limits and (self.has_project_limits or is_ending_nested):
            before.append(limits.project if is_ending_nested else limits.own)
        if self.is_finishing:
            before += ["CLOSE hc_signals_commit"] if is_nested else ["SET CONSTRAINTS ALL IMMEDIATE", "CLOSE ALL"]
        after = self._replace(unchecked=None, is_finishing=False, has_project_limits=False)
        return [statement for statement in before if statement], after


def left_settings_error(error: BaseException) -> LeftSettingsError:
    """Return the error that is stored for the receiver, with the names of the settings."""
    return LeftSettingsError(
        f"The receiver changed settings of its session and left them so: {message(error)}. They are set back, and in a "
        "transaction whatever it wrote is gone. Put SET LOCAL into a block of transaction.atomic(), together with the "
        "queries that need it."
    )
