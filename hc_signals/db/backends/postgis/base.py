"""``ENGINE = "hc_signals.db.backends.postgis"``: the PostGIS backend; needs GDAL, as Django's own does."""

from django.contrib.gis.db.backends.postgis import base

from hc_signals.db.backends.connected import ConnectedDatabaseMixin
from hc_signals.db.backends.postgresql.base import DatabaseCreation


class DatabaseWrapper(ConnectedDatabaseMixin, base.DatabaseWrapper):
    """The connection."""

    creation_class = DatabaseCreation
