"""Texts of records and errors as HTML: escaped, shortened, and with a visible sign for each invisible character."""

import re
import unicodedata

from django.utils.html import conditional_escape, escape
from django.utils.safestring import SafeString

KEPT = 40
"""Characters that remain at each end of a shortened text."""

_UNUSUAL = re.compile(r"[^\n\t -~]")
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, direction marks, zero width characters and separators."""


def visible(text: str) -> SafeString:
    """Return a text as HTML in which a direction mark or a zero width character is a sign like ``U+202E``.

    Otherwise a text could change the order in which a browser shows the rest of the line, or be equal to another one
    only for the eye. Line ends and tabs remain.
    """
    return SafeString(_UNUSUAL.sub(_sign, escape(text)))


def _sign(found: re.Match[str]) -> str:
    character = found[0]
    if unicodedata.category(character) not in _INVISIBLE:
        return character
    name = unicodedata.name(character, "control character").lower()
    return f'<span class="hc-sign" title="{conditional_escape(name)}">U+{ord(character):04X}</span>'


def cut(text: str, most: int) -> str:
    """Return at most ``most`` characters of a text, with an ellipsis if some are missing."""
    return text if len(text) <= most else f"{text[:most]}…"


def shortened(text: str, longest: int) -> str:
    """Return the beginning and the end of a text, and how many characters are between them, if it is too long."""
    if len(text) <= longest:
        return text
    return f"{text[:KEPT]} … {len(text) - 2 * KEPT} characters … {text[-KEPT:]}"
