"""django-configurations: the settings are a class."""

import os
from typing import Any

from tests.ecosystem.site import equal

PACKAGES = ("django-configurations",)
SETTINGS_MODULE = "tests.ecosystem.configured"


def prepare() -> None:
    """Do what manage.py of such a project does."""
    os.environ.setdefault("DJANGO_CONFIGURATION", "Dev")
    import configurations

    configurations.setup()


def check(site: Any) -> None:
    from hc_signals.conf import get_conf

    equal(get_conf().RETENTION_HOURS, 24)
