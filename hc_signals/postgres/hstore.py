"""Parser of the text of an hstore: PostgreSQL prints it, and Heroku Connect stores records so."""

import re

_STRING = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_PAIR = re.compile(rf"\s*{_STRING}\s*=>\s*(?:{_STRING}|(NULL))\s*(,|\Z)", re.DOTALL | re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def hstore_text_to_dict(text: str | None) -> dict[str, str | None]:
    r"""Parse the text of an hstore, such as ``values`` and ``old``.

    Args:
        text: such as ``"name"=>"Ada \"A\"", "email"=>NULL``; empty text and None are an empty record.

    Raises:
        ValueError: the text is not an hstore as PostgreSQL prints it. The message names the position.
    """
    pairs: dict[str, str | None] = {}
    position, comma = 0, ""
    rest = (text or "").rstrip()
    while position < len(rest) or comma:
        match = _PAIR.match(rest, position)
        if match is None:
            near = rest[position : position + 40]
            raise ValueError(f'No "key"=>"value" of an hstore at character {position}: {near!r}.')
        key, value, null, comma = match.groups()
        pairs[_unescape(key)] = None if null else _unescape(value)
        position = match.end()
    return pairs


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
