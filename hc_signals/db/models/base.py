"""The base of all models whose table Heroku Connect owns."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.base import ModelBase

from hc_signals.db.exceptions import WriteNotSupportedError
from hc_signals.db.models.fields import ID, Checkbox, DateTime, HerokuConnectFieldMixin
from hc_signals.db.models.inheritance import LinkedByValue, link_by_value
from hc_signals.tables import get_schema, has_no_is_deleted

__all__ = ("READ_ONLY", "READ_WRITE", "HerokuConnectModel")

READ_ONLY = "read_only"
"""Heroku Connect copies from Salesforce to PostgreSQL."""
READ_WRITE = "read_write"
"""Heroku Connect copies both ways: it also sends the app's changes to Salesforce."""

_ACCESS_LEVELS = [READ_ONLY, READ_WRITE]


class _Gone:
    """Hides an attribute of a base class: reading it is an AttributeError."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(f"{owner.__name__!r} object has no attribute 'is_deleted': Salesforce has no such field.")


class HerokuConnectModelBase(ModelBase):
    """Sets ``managed`` and ``db_table`` in the Meta of connected models."""

    def add_to_class(cls, name: str, value: Any) -> None:
        """Adjust the options when Django adds them to the class, after it has resolved the inheritance of Meta."""
        if name == "_meta":
            if getattr(value.meta, "abstract", False):
                # On the user's own Meta, as django-heroku-connect does.
                value.meta.managed = False
            elif value.meta is not None:
                value.meta = cls._get_adjusted_meta(value.meta)
            if has_no_is_deleted(getattr(cls, "sf_object_name", "")):
                # Set on the class itself, so that Django does not copy the field of the abstract base.
                super().add_to_class("is_deleted", _Gone())
            has_table = bool(getattr(value.meta, "db_table", ""))
        super().add_to_class(name, value)
        if name == "_meta" and value.abstract and not has_table:
            # In the options and not in Meta: children that inherit Meta would inherit the table as well.
            value.db_table = cls._get_default_table() or value.db_table

    def _prepare(cls) -> None:
        super()._prepare()  # type: ignore[misc]
        link_by_value(cls)

    def _get_default_table(cls) -> str:
        object_name, schema = getattr(cls, "sf_object_name", ""), getattr(cls, "hc_schema", "") or get_schema()
        return f'{schema}"."{object_name.lower()}' if object_name else ""

    def _get_adjusted_meta(cls, meta: Any) -> type:
        """Return a changed copy of Meta; the original may be shared with other models."""
        connected: list[Any] = [base for base in cls.__bases__ if isinstance(base, HerokuConnectModelBase)]
        changes: dict[str, Any] = {}
        if any(base._meta.abstract for base in connected):
            changes["managed"] = False
            if not getattr(meta, "db_table", "") and (table := cls._get_default_table()):
                changes["db_table"] = table
        elif connected and not getattr(meta, "proxy", False) and not cls._declares_managed(meta):
            changes["managed"] = True
        attrs = {key: value for key, value in vars(meta).items() if key not in ("__dict__", "__weakref__")}
        return type("Meta", meta.__bases__, attrs | changes)

    def _declares_managed(cls, meta: Any) -> bool:
        """Return whether the class itself sets ``managed``, and not the Meta of an ancestor."""
        inherited = [vars(base).get("Meta") for base in cls.__mro__]
        return meta not in inherited and any("managed" in vars(part) for part in meta.__mro__ if part not in inherited)


def get_heroku_connect_table_name(model_cls: Any) -> str:
    """Return the table name, without schema, of a connected model class.

    Raises:
        LookupError: no table name is associated with the given class.
    """
    opts = getattr(model_cls, "_meta", None)
    if opts is None or opts.abstract or not isinstance(model_cls, HerokuConnectModelBase):
        raise LookupError(f"{model_cls!r} is not a concrete connected model; it has no table name.")
    if not model_cls.sf_object_name and "db_table" not in opts.original_attrs:  # type: ignore[attr-defined]
        raise LookupError(f"{opts.label} has no table name; give it an 'sf_object_name'.")
    return str(opts.db_table).rpartition(".")[2].strip('"')


class HerokuConnectModel(LinkedByValue, metaclass=HerokuConnectModelBase):
    """Base of all models whose table Heroku Connect owns. The table's name is ``sf_object_name`` in lower case.

    If the table lacks a system column, set the field to None, as Django removes any inherited field:
    ``system_mod_stamp = None``, ``is_deleted = None``.
    """

    sf_object_name: str = ""
    """API name of the Salesforce object."""
    hc_schema: str = ""
    """Schema of the connection that maps the object; empty: ``HEROKU_CONNECT_SCHEMA``. For a second org."""
    sf_access: str = READ_ONLY
    """``READ_ONLY``: from Salesforce to PostgreSQL; ``READ_WRITE``: both ways."""
    sf_without_upsert: bool = False
    """True: the mapping is read-write and has no unique identifier. Heroku Connect allows this and advises against it.

    Heroku Connect then identifies a record by its Salesforce id alone. If your app inserts a record, and Heroku Connect
    reads it before it has written the id back, the table gets a second row of it.
    """
    sf_notify_enabled: bool = False
    """Let Salesforce's Streaming API start a poll when records change."""
    sf_polling_seconds: int = 600
    """Seconds between two polls."""
    sf_max_daily_api_calls: int = 30000
    """Most calls of Salesforce's API per day."""

    sf_id = ID(sf_field_name="Id", db_column="sfid")
    system_mod_stamp = DateTime(sf_field_name="SystemModstamp", db_index=True, editable=False)
    is_deleted = Checkbox(sf_field_name="IsDeleted", editable=False)
    _hc_lastop = models.CharField(max_length=32, null=True, editable=False)
    _hc_err = models.TextField(null=True, editable=False)

    if TYPE_CHECKING:
        Meta: Any  # pyright refuses a nested class of the project that differs from ours
    else:

        class Meta:
            abstract = True
            managed = False

    def validate_constraints(self, exclude: Any = None) -> None:
        """Check the constraints, as Django does. A form of a read-only model is invalid, and says why.

        Django asks the router for the database to check them in, and that refuses a read-only model.
        """
        try:
            super().validate_constraints(exclude)
        except WriteNotSupportedError as error:
            raise ValidationError(str(error)) from error

    @classmethod
    def get_heroku_connect_table_name(cls) -> str:
        """Return the table name without schema.

        Raises:
            LookupError: the model has no table name.
        """
        return get_heroku_connect_table_name(cls)

    @classmethod
    def get_heroku_connect_fields(cls) -> list[Any]:
        """Return the fields that exist in Salesforce, inherited ones included."""
        return [field for field in cls._meta.fields if isinstance(field, HerokuConnectFieldMixin)]

    @classmethod
    def get_heroku_connect_field_mapping(cls) -> tuple[dict[str, Any], dict[str, Any], str | None]:
        """Return fields, indexes and the name of the upsert field, in the format of Heroku Connect's mapping."""
        found = cls.get_heroku_connect_fields()
        fields: dict[str, Any] = {field.sf_field_name: {} for field in found}
        indexes = {field.sf_field_name: {"unique": field.unique} for field in found if field.db_index}
        upserts = [field.sf_field_name for field in found if field.upsert]
        return fields, indexes, upserts[-1] if upserts else None

    @classmethod
    def get_heroku_connect_mapping(cls) -> dict[str, Any]:
        """Return the entry of this model in Heroku Connect's mapping."""
        fields, indexes, upsert_field = cls.get_heroku_connect_field_mapping()
        config: dict[str, Any] = {
            "access": cls.sf_access,
            "sf_notify_enabled": cls.sf_notify_enabled,
            "sf_polling_seconds": cls.sf_polling_seconds,
            "sf_max_daily_api_calls": cls.sf_max_daily_api_calls,
            "fields": fields,
            "indexes": indexes,
        }
        if upsert_field is not None:
            config["upsert_field"] = upsert_field
        return {"object_name": cls.sf_object_name, "config": config}

    @classmethod
    def check(cls, **kwargs: Any) -> list[checks.CheckMessage]:
        """Run Django's checks and those of the Salesforce attributes."""
        return [*super().check(**kwargs), *cls._check_heroku_connect()]

    @classmethod
    def _check_heroku_connect(cls) -> list[checks.CheckMessage]:
        def add(number: int, message: str, hint: Any = None) -> None:
            errors.append(checks.Error(f"{label}{message}", hint=hint, id=f"heroku_connect.E{number:03}"))

        errors: list[checks.CheckMessage] = []
        label = f"{cls._meta.app_label}.{cls.__name__}"
        fields = cls.get_heroku_connect_fields()
        if not cls._meta.abstract and not cls.sf_object_name:
            add(1, ' must define a "sf_object_name".')
        if cls.sf_access not in _ACCESS_LEVELS:
            add(2, f".sf_access must be one of {_ACCESS_LEVELS}", cls.sf_access)
        counts = Counter(field.sf_field_name for field in fields)
        duplicates = [name for name, count in counts.items() if count > 1]
        if duplicates:
            add(3, " has duplicate Salesforce field names.", duplicates)
        upserts = [field for field in fields if field.upsert]
        if len(upserts) > 1:
            add(4, " can only have a single upsert field.", upserts)
        if cls.sf_access == READ_WRITE and not upserts and not cls.sf_without_upsert:
            add(7, " does not have an upsert field.", "Read-write models need an upsert field.")
        errors += [
            checks.Error(
                f"{label}.{field.name} is an upsert field that is not unique.",
                hint="Remove 'unique=False': Heroku Connect finds the record by this field.",
                id="hc_signals.E003",
            )
            for field in upserts
            if not field.unique
        ]
        return errors
