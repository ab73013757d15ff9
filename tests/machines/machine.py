"""Shared by the Hypothesis state machines: the number of examples, and connections for writers."""

import os
from typing import Any

import psycopg
from django.db import connection
from hypothesis import HealthCheck, Phase, settings

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
        suppress_health_check=list(HealthCheck),
    )


def new_connection() -> "psycopg.Connection[Any]":
    """Return an autocommit connection to the test database that counts as Heroku Connect's."""
    values = {k: v for k, v in connection.get_connection_params().items() if k not in ("cursor_factory", "context")}
    opened: psycopg.Connection[Any] = psycopg.connect(**values, autocommit=True)
    opened.execute("SET xmlbinary = 'hex'")
    return opened
