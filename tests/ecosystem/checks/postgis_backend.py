"""GeoDjango: our PostGIS engine."""

from typing import Any

from tests.ecosystem.checks import postgis

PACKAGES, NEEDS, APPS = postgis.PACKAGES, postgis.NEEDS, postgis.APPS
DATABASE: dict[str, Any] = {"ENGINE": "hc_signals.db.backends.postgis"}
models, check = postgis.models, postgis.check
