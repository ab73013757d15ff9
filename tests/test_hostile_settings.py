"""Settings of the server, a database or a role do not make capture or delivery slow or wrong."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture.status import status_of
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_the_app, deliver
from tests.test_nested_triggers import UPPER, customers_trigger

PARALLEL = {
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "min_parallel_index_scan_size": "0",
    "max_parallel_workers_per_gather": "4",
}
HOSTILE: dict[str, dict[str, str]] = {
    "no plan is enabled": {},
    "custom plans": {"plan_cache_mode": "force_custom_plan"},
    "generic plans": {"plan_cache_mode": "force_generic_plan"},
    "no memory": {"work_mem": "64kB", "hash_mem_multiplier": "1"},
    "parallel workers": PARALLEL,
    "compression": {"default_toast_compression": "lz4"},
    "tracking": {"track_functions": "all", "track_io_timing": "on", "track_activities": "off"},
    "everything compiled": {"jit_above_cost": "0", "jit_optimize_above_cost": "0", "jit_inline_above_cost": "0"},
    "no waiting": {"lock_timeout": "1ms"},
    "other formats": {
        "standard_conforming_strings": "off",
        "quote_all_identifiers": "on",
        "transform_null_equals": "on",
        "DateStyle": "SQL, DMY",
        "IntervalStyle": "sql_standard",
        "bytea_output": "escape",
        "TimeZone": "Asia/Kathmandu",
    },
}


def of_this_server(kind: str) -> dict[str, str]:
    """Return the settings of a kind that this server knows."""
    settings = dict(HOSTILE[kind])
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, vartype, enumvals FROM pg_settings")
        known = {name: (kind_of_value, values or []) for name, kind_of_value, values in cursor.fetchall()}
    if kind == "no plan is enabled":
        settings = {name: "off" for name, (type_, _) in known.items() if name.startswith("enable_") and type_ == "bool"}
    if kind == "parallel workers":
        settings |= {n: "on" for n in ("force_parallel_mode", "debug_parallel_query") if n in known}
    if kind == "compression" and "lz4" not in known["default_toast_compression"][1]:
        pytest.skip("the server was built without lz4")
    return settings


@contextmanager
def database_with(settings: dict[str, str]) -> Iterator[None]:
    """Give the test database settings; sessions that begin inside the block have them."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    for setting, value in settings.items():
        values = ", ".join(f"'{part}'" for part in value.split(", "))
        as_the_app(f"ALTER DATABASE {name} SET {setting} = {values}")
    connection.close()
    try:
        yield
    finally:
        connection.close()
        as_the_app(f"ALTER DATABASE {name} RESET ALL")
        connection.close()


@pytest.fixture
def received(connect: Any) -> list[tuple[str, Any, Any]]:
    """Change types, old and new names of accounts, in the order in which receivers are called."""
    got: list[tuple[str, Any, Any]] = []

    def on_change(event: Any, instance: Account, **kwargs: Any) -> None:
        got.append((event.change_type, event.previous.get("name"), instance.name))

    connect(signals.record_changed, on_change, Account)
    return got


@pytest.mark.parametrize("kind", HOSTILE)
def test_settings_of_the_database_do_not_change_events(captured: HerokuConnect, received: list[Any], kind: str) -> None:
    customers_trigger(UPPER)
    with database_with(of_this_server(kind)):
        (sfid,) = captured.insert(Account, name="one")
        captured.update(Account, sfid, name="uno")
        captured.delete(Account, sfid)
        assert deliver() == 5
        assert status_of(Account, "default").state == "installed"
    assert received == [
        ("CREATE", None, "one"),
        ("UPDATE", "one", "ONE"),
        ("UPDATE", "ONE", "uno"),
        ("UPDATE", "uno", "UNO"),
        ("DELETE", None, "UNO"),
    ]


def test_float_digits_of_the_writer_round_no_image(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []
    connect(signals.record_created, lambda instance, **kwargs: got.append(instance.annual_revenue), Account)
    with another("SET LOCAL xmlbinary = 'hex'; SET LOCAL extra_float_digits = -3") as cursor:
        cursor.execute("INSERT INTO salesforce.account (sfid, annualrevenue) VALUES ('A1', 1234567890123.45)")
        cursor.execute("COMMIT")
    deliver()
    assert got == [Account.objects.get().annual_revenue] == [Decimal("1234567890123.45")]


@pytest.mark.fault(
    "a session's first update has one row, a later one very many",
    outcome="captured; each takes as long as alone",
)
def test_small_update_does_not_slow_a_later_large_one(captured: HerokuConnect) -> None:
    """The session reuses its plan: one with a nested loop would take minutes for 20 000 rows."""
    rows = 6000
    for own in ("hc_account_status_trigger", "hc_account_logtrigger"):  # they take most of the time
        as_the_app(f"ALTER TABLE salesforce.account DISABLE TRIGGER {own}")
    as_the_app(f"INSERT INTO salesforce.account (sfid, name) SELECT 'A' || g, 'n' FROM generate_series(1, {rows}) g")

    def seconds(first: int) -> float:
        with another("SET LOCAL xmlbinary = 'hex'") as cursor:
            cursor.execute("UPDATE salesforce.account SET name = 'x' WHERE sfid <= 'A' || %s::text", [first])
            began = time.perf_counter()
            cursor.execute("UPDATE salesforce.account SET name = 'y'")
            return time.perf_counter() - began

    alone = min(seconds(rows) for _ in range(2))
    assert min(seconds(1) for _ in range(2)) < 5 * alone
