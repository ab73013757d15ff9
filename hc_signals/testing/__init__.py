"""Tools for tests and development: a simulated Heroku Connect, delivery inside a test, assertions about signals.

A test changes records as Salesforce would, delivers the changes, and asserts which signals were sent. It runs on real
PostgreSQL tables with the real capture triggers, log and receivers. The package owns no table. In a test database it
creates the tables of Heroku Connect, and it empties them and the change log after each test.

::

    HerokuConnect.insert()   writes a row, as Heroku Connect does
            |
    capture trigger  ------> change log
                                 |
    deliver_changes()  <---------+      what hc_listen does, in the test's own process
            |
    receivers, capture_signals(), assert_signal()

The simulator is one class, made of a chain of base classes. Each one uses only what is in the classes above it:

    rows             Rows: reads and writes rows by column, without the ORM; numbers new records
    inventing        Inventing(Rows): creates records with invented values; fills relations and unique fields
    salesforce       Salesforce(Inventing): polls edited records, deletes, bulk loads, reloads
    app_writes       AppWrites(Salesforce): what the app writes, Salesforce's answer, the echo of the next poll
    tables           Tables(Rows): creates, alters and drops schemas and tables, with Heroku Connect's own triggers
    traffic          Traffic(AppWrites, Tables): an endless series of random steps
    heroku_connect   HerokuConnect(Traffic): the public class

Beside it:

    salesforce_org   SalesforceOrg: polls and writes of the app that take time, one step after the other
    invented_values  random values that fit a field, and distinct values for a unique field
    salesforce_ids   ids with Salesforce's checksum
    field_names      the error for an unknown field, with the nearest name
    databases        prepares test databases, and empties tables
    delivering       deliver_changes()
    assertions       capture_signals() and assert_signal()
    expectation      checks the arguments of assert_signal(), and compares them with a signal
    sent             one signal that was sent
    plugin           the pytest plugin; pytest loads it before Django is set up
    cases            test cases and a test runner for unittest
    embedded         a PostgreSQL server from PyPI
    utils            context managers for tests of a project

The library never imports this package, except for the command ``hc_simulate`` and the database backends, which create
test databases. In a schema of a real Heroku Connect, the package neither creates nor empties tables for a test: it
raises ``RealHerokuConnectError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hc_signals.testing.assertions import assert_signal, capture_signals
    from hc_signals.testing.delivering import DeliverChanges, deliver_changes
    from hc_signals.testing.heroku_connect import HerokuConnect
    from hc_signals.testing.salesforce_org import SalesforceOrg
    from hc_signals.testing.sent import Sent

__all__ = [
    "DeliverChanges",
    "HerokuConnect",
    "SalesforceOrg",
    "Sent",
    "assert_signal",
    "capture_signals",
    "deliver_changes",
]

_HOMES = {
    "DeliverChanges": "delivering",
    "HerokuConnect": "heroku_connect",
    "SalesforceOrg": "salesforce_org",
    "Sent": "sent",
    "assert_signal": "assertions",
    "capture_signals": "assertions",
    "deliver_changes": "delivering",
}


def __getattr__(name: str) -> Any:
    # pytest loads the plugin, and so this package, in every project of the environment. It must not import Django.
    if name in _HOMES:
        return getattr(import_module(f"hc_signals.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
