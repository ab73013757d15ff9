"""Texts of ours, such as the message of a receiver's error, made fit for the encoding of the database."""

from django.db import connections

_CODECS = {None: "utf-8", "UTF8": "utf-8", "SQL_ASCII": "utf-8", "LATIN1": "iso8859-1"}
"""Python's codec by the server's name of the encoding. SQL_ASCII stores every byte. Of the others only ASCII is kept:
Python and PostgreSQL do not map all of their characters alike."""


def storable(text: str, using: str) -> str:
    """Return a text as the database can store it, whatever it says: an error must not stand in the way of its own row.

    NUL and lone surrogates, which no encoding has, become nothing and ``?``; characters that the encoding of the
    database lacks become escapes such as ``\\u2713``. Costs no round trip.

    Args:
        using: database alias, connected.
    """
    connections[using].ensure_connection()  # with ATOMIC = False a receiver may have lost or closed it
    codec = _CODECS.get(connections[using].connection.info.parameter_status("server_encoding"), "ascii")
    text = text.replace("\x00", "").encode(errors="replace").decode()
    return text.encode(codec, errors="backslashreplace").decode(codec)
