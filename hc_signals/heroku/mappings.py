"""Heroku Connect's configuration as JSON: makes it from models, reads it from a file, compares it with models."""

import datetime
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.db import models

from hc_signals.conf import heroku_app_name, heroku_setting
from hc_signals.db.models import READ_ONLY
from hc_signals.exceptions import MappingError
from hc_signals.postgres.moments import aware, now
from hc_signals.tables import get_schema, models_of_schema

VERSION = 1
"""Version of the format; Heroku Connect exports no other."""
_ALWAYS_INDEXED = "id"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference between a configuration and the models."""

    object_name: str
    """API name of the Salesforce object."""
    model: str = ""
    """Label of the model; empty if the mapped object has no model."""
    field: str = ""
    """API name of the Salesforce field; empty if the difference is about the whole mapping."""
    found: str
    expected: str
    is_failure: bool = True
    """False for a difference that is information and no fault."""

    def __str__(self) -> str:
        where = f"{self.model or 'no model'} ({self.object_name})" + (f", field {self.field}" if self.field else "")
        return f"{'' if self.is_failure else 'information: '}{where}: found {self.found}, expected {self.expected}"


def get_mapping(
    version: int = VERSION,
    exported_at: datetime.datetime | None = None,
    app_name: str | None = None,
    schema: str = "",
) -> dict[str, Any]:
    """Return the configuration that one connection of Heroku Connect needs for its models.

    Args:
        version: version of the format.
        exported_at: time of the export; now by default.
        app_name: name of the Heroku app; ``HEROKU_CONNECT_APP_NAME`` by default.
        schema: schema of the connection's tables; default: the only one that has models.

    Raises:
        ConfigurationError: no model has a table in the schema; or several schemas have models, and none was named.
    """
    models = models_of_schema(schema)
    is_of_settings = schema in ("", get_schema())  # the setting names the organisation of that schema
    return {
        "version": version,
        "connection": {
            "organization_id": heroku_setting("HEROKU_CONNECT_ORGANIZATION_ID") if is_of_settings else "",
            "app_name": heroku_app_name() if app_name is None else app_name,
            "exported_at": (aware(exported_at or now())).isoformat(),
        },
        "mappings": [mapping_of(model) for model in models],
    }


def load(path: str | Path) -> dict[str, Any]:
    """Read an exported configuration.

    Raises:
        MappingError: no such file, not JSON, not an object, another version than 1, or no usable ``mappings``.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise MappingError(f"There is no file {str(path)!r}.") from None
    except OSError as error:
        raise MappingError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise MappingError(f"{str(path)!r} is not JSON: {error}.") from error
    try:
        _check(config)
    except MappingError as error:
        raise MappingError(f"{str(path)!r} is not an export of Heroku Connect: {error}") from error
    return dict(config)


def compare(config: dict[str, Any], models: Iterable[type[models.Model]]) -> list[Difference]:
    """Compare a configuration with models. Names compare without case, as in Salesforce.

    An object without a model is information. So is another upsert field, if both sides are read-only.

    Args:
        config: an exported configuration, as ``load()`` or ``get_mapping()`` return it.
        models: connected models.

    Raises:
        MappingError: the configuration has no usable ``mappings``.
    """
    _check(config)
    mapped = {entry["object_name"].lower(): entry for entry in config["mappings"]}
    wanted = [(model._meta.label, mapping_of(model)) for model in models]
    found = [difference for label, own in wanted for difference in _compare_model(label, own, mapped)]
    known = {own["object_name"].lower() for _, own in wanted}
    return found + [
        Difference(
            object_name=entry["object_name"], found="a mapping", expected="a model if it is read here", is_failure=False
        )
        for name, entry in mapped.items()
        if name not in known
    ]


def mapping_of(model: Any) -> dict[str, Any]:
    """Return the mapping of a connected model.

    In a plain Django model with an ``sf_object_name``, every column is a field of Salesforce, except Heroku Connect's
    own. The column's name is the API name, because names compare without case.
    """
    own = getattr(model, "get_heroku_connect_mapping", None)
    if own is not None:
        mapping: dict[str, Any] = own()
        return mapping
    fields = {
        getattr(field, "sf_field_name", "Id" if field.column == "sfid" else str(field.column)): field
        for field in model._meta.local_concrete_fields
        if field.column != "id" and not str(field.column).startswith("_hc_")
    }
    indexes = {name: {"unique": field.unique} for name, field in fields.items() if field.unique or field.db_index}
    access = getattr(model, "sf_access", READ_ONLY)
    config: dict[str, Any] = {"access": access, "fields": {name: {} for name in fields}, "indexes": indexes}
    return {"object_name": model.sf_object_name, "config": config}


def _check(config: Any) -> None:
    if not isinstance(config, dict):
        raise MappingError(f"found {type(config).__name__}, expected an object with 'version' and 'mappings'.")
    version = config.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise MappingError(f"found version {version!r}, expected {VERSION}.")
    entries = config.get("mappings")
    if not isinstance(entries, list):
        raise MappingError(f"found {type(entries).__name__} as 'mappings', expected a list of mappings.")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("object_name"), str):
            raise MappingError(f"mapping {number} of {len(entries)} has no 'object_name'.")
        if not isinstance(entry.get("config"), dict):
            raise MappingError(f"the mapping of {entry['object_name']} has no 'config'.")


def _compare_model(label: str, own: dict[str, Any], mapped: dict[str, Any]) -> Iterator[Difference]:
    name, wanted = own["object_name"], own["config"]
    difference = partial(Difference, object_name=name, model=label)
    entry = mapped.get(name.lower())
    if entry is None:
        yield difference(found="no mapping", expected="one")
        return
    config = entry["config"]
    if config.get("access") != wanted["access"]:
        yield difference(found=f"access {config.get('access')!r}", expected=repr(wanted["access"]))
    fields = set(by_lower_name(config.get("fields")))
    for field in wanted["fields"]:
        if field.lower() not in fields:
            yield difference(field=field, found="no such field", expected="it to be mapped")
    for field, found in _indexes_missing(wanted["indexes"], config, fields):
        yield difference(field=field, found=found, expected="a unique index")
    upsert, expected = config.get("upsert_field"), wanted.get("upsert_field")
    if str(upsert or "").lower() != str(expected or "").lower():
        yield difference(
            field=expected or str(upsert),
            found=f"upsert field {upsert!r}" if upsert else "no upsert field",
            expected=repr(expected) if expected else "none",
            is_failure="read_write" in (wanted["access"], config.get("access")),
        )


def _indexes_missing(wanted: dict[str, Any], config: dict[str, Any], fields: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the mapped fields that lack a unique index, each with the index that it has."""
    indexes = by_lower_name(config.get("indexes"))
    for field, options in wanted.items():
        name = field.lower()
        if not options["unique"] or name not in fields:
            continue
        if name not in indexes:
            # Heroku Connect indexes the record's id by itself, and old exports do not mention it.
            if name != _ALWAYS_INDEXED:
                yield field, "no index"
        elif not (isinstance(indexes[name], dict) and indexes[name].get("unique") is True):
            yield field, "an index that is not unique"


def by_lower_name(items: Any) -> dict[str, Any]:
    """Return the options of each name, in lower case. A list has names, or objects with a ``name``."""
    if isinstance(items, dict):
        return {str(name).lower(): options for name, options in items.items()}
    if not isinstance(items, list):
        return {}
    pairs = [(item.get("name"), item) if isinstance(item, dict) else (item, {}) for item in items]
    return {str(name).lower(): options for name, options in pairs}
