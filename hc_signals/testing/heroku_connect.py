"""The simulated Heroku Connect, as users import it."""

from hc_signals.testing.tables import RealHerokuConnectError
from hc_signals.testing.traffic import POLL_SIZE, Step, Traffic

__all__ = ("POLL_SIZE", "HerokuConnect", "RealHerokuConnectError", "Step")


class HerokuConnect(Traffic):
    """A Heroku Connect for tests and development, on real tables of a real server.

    Values are given by the model's field names, or by column names. The simulator writes as Heroku Connect does. Its
    transactions set ``xmlbinary = hex``, and what the first rule of ``ORIGINS`` asks for. An UPDATE has all mapped
    columns. A record deleted in Salesforce is a hard DELETE. A record that the app wrote gets its sfid, and then an
    echo. Every table has Heroku Connect's own triggers.

    Args:
        using: database alias.
        models: the connected models whose tables it writes; default: all of the project.
        seed: the same seed on the same (empty) tables writes the same records in the same order.
        clock: returns the time for ``systemmodstamp`` and ``createddate``; default: now, in UTC.
    """
