"""Names and strings as SQL."""

LONGEST_NAME = 63
"""Bytes of the longest name that PostgreSQL stores."""


def truncate_name(name: str) -> str:
    """Cut a name as PostgreSQL does: to LONGEST_NAME bytes, at a whole character."""
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def quote(name: str) -> str:
    """Quote one SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote one SQL string."""
    return "'" + text.replace("'", "''") + "'"
