"""``ENGINE = "hc_signals.db.backends.postgresql"``: Django's backend, with Heroku Connect's schema."""

from django.db.backends.postgresql import base, creation

from hc_signals.db.backends.connected import ConnectedDatabaseCreation, ConnectedDatabaseMixin


class DatabaseCreation(ConnectedDatabaseCreation, creation.DatabaseCreation):
    """Creates test databases."""


class DatabaseWrapper(ConnectedDatabaseMixin, base.DatabaseWrapper):
    """The connection."""

    creation_class = DatabaseCreation
