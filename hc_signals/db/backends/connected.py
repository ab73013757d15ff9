"""Base classes of both database backends: they find Heroku Connect's schema, and create it in test databases."""

from typing import Any

from django.db import DatabaseError
from django.db.models.signals import pre_migrate

from hc_signals.tables import get_schema


class ConnectedDatabaseCreation:
    """Creates Heroku Connect's tables in test databases, before the first migration, which may refer to them."""

    connection: Any

    def create_test_db(self, *args: Any, **kwargs: Any) -> str:
        """Create the test database. With ``--keepdb``, existing tables stay and missing ones are created."""

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
        """Add the search path to the connection's ``options``, before the user's own, which take precedence."""
        params: dict[str, Any] = super().get_connection_params()  # type: ignore[misc]
        schema = get_schema()
        if any(character in schema for character in " \\'\""):
            raise DatabaseError(f"HEROKU_CONNECT_SCHEMA is {schema!r}; spaces and quotes cannot be on the search path.")
        path = f"-c search_path=public,{schema},pg_catalog"
        params["options"] = f"{path} {params.get('options', '')}".strip()
        return params
