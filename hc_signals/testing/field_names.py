"""The error for an unknown field, with the nearest name."""

import difflib
from collections.abc import Iterable


def unknown_field(label: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a field that a model does not have.

    Args:
        label: of the model, as ``crm.Account``.
        name: the unknown name.
        known: the names of the fields.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{label} has no field {name!r}; its fields: {', '.join(names)}.{hint}"
