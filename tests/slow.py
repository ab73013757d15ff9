"""The tests that `make test-fast` leaves out. The mark ``slow`` has no other home."""

from collections.abc import Iterable

import pytest

FILES = {
    # Start projects, servers, standbys, poolers or worker processes.
    "test_benchmarks.py",
    "test_capture_returns.py",
    "test_chaos.py",
    "test_crew.py",
    "test_disk_full.py",
    "test_docs_code.py",
    "test_encodings.py",
    "test_failover.py",
    "test_fatal_calls.py",
    "test_habits.py",
    "test_identity.py",
    "test_kit.py",
    "test_kit_order.py",
    "test_log_lines.py",
    "test_moving.py",
    "test_poolers.py",
    "test_refused_connections.py",
    "test_restore.py",
    "test_server_settings.py",
    "test_stack.py",
    "test_standby.py",
    "test_tail_command.py",
    "test_ten_minutes.py",
    "test_testing_utils.py",
    "test_trackers.py",
    "test_trouble.py",
    "test_types.py",
    "test_unheard.py",
    "test_upgrade.py",
    "test_wheel.py",
    "test_worker_process.py",
    # Try many cases, many rows or many settings of a server.
    "machines/test_bell.py",
    "machines/test_reader.py",
    "test_forms.py",
    "test_heroku_connect.py",
    "test_hostile_settings.py",
    "test_instances.py",
    "test_invented.py",
    "test_nested_triggers.py",
    "test_orgs.py",
    "test_plans.py",
    "test_search_path.py",
    "test_time_zones.py",
    "test_written_models.py",
    # Wait for locks, timeouts or the turn of a clock.
    "test_clock.py",
    "test_ddl_freedom.py",
    "test_kinds_of_tables.py",
    "test_log_limit.py",
    "test_retries.py",
    "test_watch.py",
    "test_watchdog.py",
}
"""Whole files, below tests/."""


def mark(items: Iterable[pytest.Item]) -> None:
    """Give each test of these files the mark ``slow``."""
    for item in items:
        if any(item.path.match(f"tests/{file}") for file in FILES):
            item.add_marker("slow")
