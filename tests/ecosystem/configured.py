"""The settings of a project with django-configurations."""

from configurations import Configuration, values

from tests.ecosystem import settings as plain

_BASE = {name: value for name, value in vars(plain).items() if name.isupper()}


class Dev(type("Base", (Configuration,), _BASE)):  # type: ignore[misc]
    """The settings."""

    HC_SIGNALS = values.DictValue({"RETENTION_HOURS": 24})
