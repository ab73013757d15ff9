"""A Salesforce-shaped app: every field class, inheritance, awkward names."""

import os
from typing import Any

from django.apps import AppConfig

from hc_signals.signals import record_changed


class SfdcConfig(AppConfig):
    name = "tests.sfdc"
    label = "sfdc"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if "FAILING_RECEIVER" in os.environ:
            record_changed.connect(_fail)


def _fail(instance: Any, **kwargs: Any) -> None:
    raise ValueError(f"cannot handle {instance.name}")
