"""Chooses a field class for a column, by its type and name; a comment marks a guess."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hc_signals.heroku.inspection.read import Column, unnameable
from hc_signals.tables import SYSTEM_COLUMNS


@dataclass(frozen=True)
class Guess:
    """A field of a model."""

    kind: str
    """The class, with its module: ``hc_models.Text``."""
    arguments: str = ""
    target: str = ""
    """Class name of the model that a relation points at."""
    doubt: str = ""
    """The comment beside it, if it is a guess."""

    @property
    def is_salesforce(self) -> bool:
        """Whether it is a field of Salesforce; else the column is the user's own."""
        return self.kind.startswith("hc_models.")


_POLYMORPHIC = frozenset({"ownerid", "whoid", "whatid"})
"""References to records of several objects, for which no single model is right."""
_WELL_KNOWN = {"createdbyid": "user", "lastmodifiedbyid": "user", "reportstoid": "contact"}
"""Standard references whose names do not say their object."""
_TO_ITSELF = frozenset(
    {(name, "parentid") for name in ("account", "asset", "campaign", "case")}
    | {(name, "masterrecordid") for name in ("account", "case", "contact", "lead")}
    | {("user", "managerid")}
)
"""Standard references to records of the same object."""

_MOMENT = Guess("hc_models.DateTime")
_REFERENCE = Guess("hc_models.Text", "max_length=18", doubt="a reference?")
_STANDARD = {
    "createddate": _MOMENT,
    "lastmodifieddate": _MOMENT,
    "lastvieweddate": _MOMENT,
    "lastreferenceddate": _MOMENT,
    "systemmodstamp": _MOMENT,
    "lastactivitydate": Guess("hc_models.Date"),
    "createdbyid": _REFERENCE,
    "lastmodifiedbyid": _REFERENCE,
    "ownerid": _REFERENCE,
    "recordtypeid": _REFERENCE,
    "masterrecordid": _REFERENCE,
    "currencyisocode": Guess("hc_models.Text", "max_length=3"),
    "mayedit": Guess("hc_models.Checkbox"),
    "islocked": Guess("hc_models.Checkbox"),
}
"""Salesforce's standard fields, with the same type in each object; for mappings, which have no types."""

_NUMBER = "max_digits=18, decimal_places=2"
_DIGITS = "digits are not in the table: adjust"
_BY_TYPE = {
    "text": Guess("hc_models.TextAreaLong"),
    "varchar": Guess("hc_models.AnyType", doubt="the column has no length"),
    "boolean": Guess("hc_models.Checkbox"),
    "integer": Guess("hc_models.Integer"),
    "date": Guess("hc_models.Date"),
    "time": Guess("hc_models.Time"),
    "timestamp without time zone": Guess("hc_models.DateTime"),
    "double precision": Guess("hc_models.Number", _NUMBER, doubt=_DIGITS),
    "varchar(1300)": Guess("hc_models.FormulaText", doubt="by its length: a formula?"),
    "varchar(4099)": Guess("hc_models.MultiPicklist", doubt="by its length: a multi-select picklist?"),
}
"""Types of columns that Heroku Connect creates."""
_PLAIN = {
    "bigint": "BigIntegerField",
    "smallint": "SmallIntegerField",
    "real": "FloatField",
    "timestamp with time zone": "DateTimeField",
    "uuid": "UUIDField",
    "jsonb": "JSONField",
    "bytea": "BinaryField",
    "interval": "DurationField",
    "inet": "GenericIPAddressField",
}
"""Other types. The column is the user's own, so it gets a field of Django."""


def guess(column: Column, object_name: str, class_names: Mapping[str, str], upsert: str) -> Guess | None:
    """Return the field for a column; None if no field class can read it.

    Args:
        object_name: object of the column's table.
        class_names: classes to which a relation may point, by the object's name in lower case.
        upsert: name of the upsert field's column.
    """
    is_upsert = column.column == upsert
    if not is_upsert and (found := _lookup(column, object_name, class_names)):
        return found
    if column.type is None:
        known = _STANDARD.get(column.name.lower(), Guess("hc_models.AnyType", doubt="a mapping has no types"))
        return replace(known, arguments=_joined(known.arguments, _index(column, is_upsert)))
    found = _by_type(column, is_upsert)
    return found and replace(found, arguments=_joined(found.arguments, _index(column, is_upsert, found)))


def can_be_upsert(column: Column) -> bool:
    """Return whether the column can be the upsert field: it is unique, and a text or a number."""
    if not column.unique or column.column == "id" or column.column in SYSTEM_COLUMNS:
        return False
    if column.is_computed or unnameable(column.column):
        return False
    kind = column.type or "text"
    return kind in ("text", "varchar", "double precision", "integer") or kind.startswith("varchar(")


def _index(column: Column, is_upsert: bool, found: Guess | None = None) -> str:
    if is_upsert:
        return "" if found and found.kind == "hc_models.ExternalID" else "upsert=True"
    return "unique=True" if column.unique else ""


def _joined(*arguments: str) -> str:
    return ", ".join(argument for argument in arguments if argument)


def _lookup(column: Column, object_name: str, class_names: Mapping[str, str]) -> Guess | None:
    """Return a lookup for a standard reference, which is named after its object; a custom reference is not."""
    name = column.name.lower()
    if name in _POLYMORPHIC or not name.endswith("id") or "__" in name or column.type not in (None, "varchar(18)"):
        return None
    is_to_itself = (object_name.lower(), name) in _TO_ITSELF
    target = class_names.get(object_name.lower() if is_to_itself else _WELL_KNOWN.get(name, name.removesuffix("id")))
    if target is None or column.unique:  # a unique ForeignKey fails Django's checks; it asks for a OneToOneField
        return None
    relation = 'to_field="sf_id", on_delete=models.DO_NOTHING, related_name="+"'
    return Guess("hc_models.Lookup", relation, target, "by its name")


def _by_type(column: Column, is_upsert: bool) -> Guess | None:
    kind, name = column.type or "", column.name.lower()
    length = re.fullmatch(r"(?:varchar|character)\((\d+)\)", kind)
    if is_upsert and column.holds_uuids:
        return Guess("hc_models.ExternalID", doubt="a UUID by its length?")
    if kind in _BY_TYPE:
        is_place = kind == "double precision" and re.search(r"(latitude|longitude)(__[cs])?$", name)
        return Guess("hc_models.Number", "max_digits=18, decimal_places=15") if is_place else _BY_TYPE[kind]
    if length is not None:
        return _by_name(name, int(length[1])) or Guess(
            "hc_models.Text", f"max_length={length[1]}", doubt="a reference?" if kind == "varchar(18)" else ""
        )
    return _users_own(column, kind)


_SHORTEST_EMAIL, _LONGEST_EMAIL = 80, 128
_PHONE = 40


def _by_name(name: str, length: int) -> Guess | None:
    if "email" in name and _SHORTEST_EMAIL <= length <= _LONGEST_EMAIL:
        return Guess("hc_models.Email", "" if length == _SHORTEST_EMAIL else f"max_length={length}")
    return Guess("hc_models.Phone") if "phone" in name and length == _PHONE else None


def _users_own(column: Column, kind: str) -> Guess | None:
    doubt = f"Heroku Connect makes no {kind}: a column of your own?"
    numeric = re.fullmatch(r"numeric(?:\((\d+),(-?\d+)\))?", kind)
    if numeric is not None:
        digits, places = (int(numeric[1]), int(numeric[2])) if numeric[1] else (38, 10)
        if places < 0 or places > digits:
            return None
        return Guess("models.DecimalField", f"max_digits={digits}, decimal_places={places}", doubt=doubt)
    if kind in _PLAIN:
        return Guess(f"models.{_PLAIN[kind]}", doubt=doubt)
    return Guess("models.TextField", doubt=doubt) if column.is_text else None
