"""The example's settings, and those of the check."""

from typing import Any

from example import settings as example
from tests.ecosystem.chosen import CHECK


def _merge(name: str, value: Any) -> Any:
    """Return the example's value with the check's: a list goes behind it, a dict into it."""
    before = globals().get(name)
    if isinstance(before, dict) and isinstance(value, dict):
        return before | value
    if isinstance(before, list) and isinstance(value, list):
        return before + [each for each in value if each not in before]
    return value


globals().update({name: value for name, value in vars(example).items() if name.isupper()})
SECRET_KEY = "ecosystem"
ALLOWED_HOSTS = ["*"]
STATIC_ROOT = "/nonexistent"
ROOT_URLCONF = "tests.ecosystem.urls"
INSTALLED_APPS = [
    *getattr(CHECK, "FIRST", []),
    *example.INSTALLED_APPS,
    "tests.ecosystem.shop",
    *getattr(CHECK, "APPS", []),
]
_database, _of_the_check = example.DATABASES["default"], getattr(CHECK, "DATABASE", {})
DATABASES = {"default": {**_database, **_of_the_check}}
# Those of the example may have the server's host.
DATABASES["default"]["OPTIONS"] = {**_database.get("OPTIONS", {}), **_of_the_check.get("OPTIONS", {})}
_of_the_check = CHECK.settings() if hasattr(CHECK, "settings") else getattr(CHECK, "SETTINGS", {})
for _name, _value in _of_the_check.items():
    globals()[_name] = _merge(_name, _value)
