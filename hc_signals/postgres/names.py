"""Names and strings as SQL, and texts that the database can store."""

from django.db import connections

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


_CODECS = {None: "utf-8", "UTF8": "utf-8", "SQL_ASCII": "utf-8", "LATIN1": "iso8859-1"}
"""Python's codec by the server's name of the encoding. SQL_ASCII stores every byte. Other encodings get ASCII only, as
Python and PostgreSQL map some characters differently."""


def storable(text: str, using: str) -> str:
    """Return a text that the database can store: an odd character must not keep an error from its own row.

    NUL is left out; a lone surrogate becomes ``?``. Characters that the encoding of the database lacks become escapes
    such as ``\\u2713``. Costs no round trip.
    """
    connections[using].ensure_connection()  # with ATOMIC = False a receiver may have lost or closed it
    codec = _CODECS.get(connections[using].connection.info.parameter_status("server_encoding"), "ascii")
    text = text.replace("\x00", "").encode(errors="replace").decode()
    return text.encode(codec, errors="backslashreplace").decode(codec)
