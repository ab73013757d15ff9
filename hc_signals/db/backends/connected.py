"""What both database backends add to Django's: Heroku Connect's schema is found, and exists in test databases."""

from typing import Any

from django.db import DatabaseError
from django.db.models.signals import pre_migrate

from hc_signals.tables import get_schema


class ConnectedDatabaseCreation:
    """Test databases with Heroku Connect's tables, made before the first migration that may point at them."""

    connection: Any

    def create_test_db(self, *args: Any, **kwargs: Any) -> str:
        """Create the test database; tables that are there already (``--keepdb``) stay, new ones are added."""

        def create_tables(using: str, **kwargs: Any) -> None:
            from hc_signals.testing.heroku_connect import HerokuConnect

            if using == self.connection.alias:
                HerokuConnect(using).create_tables()

        pre_migrate.connect(create_tables, weak=False)
        try:
            name: str = super().create_test_db(*args, **kwargs)  # type: ignore[misc]
        finally:
            pre_migrate.disconnect(create_tables)
        return name


class ConnectedDatabaseMixin:
    """Puts Heroku Connect's schema on the search path of every connection."""

    def get_connection_params(self) -> dict[str, Any]:
        """Add the search path to the connection's ``options``; the user's own come last, so they win."""
        params: dict[str, Any] = super().get_connection_params()  # type: ignore[misc]
        schema = get_schema()
        if any(character in schema for character in " \\'\""):
            raise DatabaseError(f"HEROKU_CONNECT_SCHEMA is {schema!r}; spaces and quotes cannot be on the search path.")
        path = f"-c search_path=public,{schema},pg_catalog"
        params["options"] = f"{path} {params.get('options', '')}".strip()
        return params
