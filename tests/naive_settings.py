"""The suite's settings in a project without time zones: ``pytest --ds=tests.naive_settings``."""

from tests.settings import *  # noqa: F403

USE_TZ = False
