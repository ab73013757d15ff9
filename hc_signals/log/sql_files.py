"""Finds the SQL files: inside the package in an installed wheel, at the repository root in a checkout."""

from pathlib import Path

_PACKAGED = Path(__file__).parent / "migrations_sql"
_CHECKOUT = Path(__file__).parent.parent / "migrations_sql"


def read_sql(name: str) -> str:
    """Return the text of the file ``name`` in ``migrations_sql/``.

    Raises:
        FileNotFoundError: the installation lacks the SQL files.
    """
    directory = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return (directory / name).read_text(encoding="utf-8")
