"""Addresses of a record: its timeline, and its page in Salesforce."""

from typing import Any

from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode

from hc_signals.admin.records import may_view
from hc_signals.conf import get_conf
from hc_signals.tables import connected_tables_of, model_of_table, table_parts


def timeline_url(site_name: str, label: str, record: str, **params: Any) -> str:
    """Return the address of the timeline of a record: its model's label, and its sfid or its id in the table."""
    url = reverse("admin:hc_signals_change_timeline", args=[label, record], current_app=site_name)
    return f"{url}?{urlencode(params, doseq=True)}" if params else url


def row_timeline_url(site_name: str, row: Any) -> str | None:
    """Return the address of the timeline of a row's record; None if it is about no record, or no model has the table.

    Args:
        row: a Change or a Delivery, or an object with ``table_name``, ``record_id`` and ``record_key`` like theirs.
    """
    model, record = model_of_table(row.table_name), row.record_id or row.record_key
    return timeline_url(site_name, model._meta.label, record) if model and record else None


def timeline_link(site_name: str, row: Any) -> str:
    """Return the link to :func:`row_timeline_url` as HTML; empty if there is none."""
    url = row_timeline_url(site_name, row)
    return format_html('<a href="{}">Timeline</a>', url) if url else ""


def object_timeline_url(request: HttpRequest, record: Model) -> str:
    """Return the address of the timeline of an instance; empty if it is not connected, or the user may not see it."""
    model = type(record)
    tables: list[Any] = connected_tables_of(model)
    if not tables or not request.user.has_perm("hc_signals.view_change") or not may_view(request.user, model):
        return ""
    by_column = {field.column: field.attname for field in tables[0]._meta.local_concrete_fields}
    values = [getattr(record, by_column[column], None) for column in ("sfid", "id") if column in by_column]
    found = next(filter(None, values), None)
    try:
        return timeline_url(request.current_app, model._meta.label, str(found)) if found else ""
    except (NoReverseMatch, AttributeError):  # an admin site without our pages; no admin site
        return ""


def salesforce_url(model: type[Model], sfid: str | None) -> str:
    """Return the address of a record in Salesforce; empty without an sfid or an address in the setting."""
    urls = get_conf().SALESFORCE_URL
    base = urls if isinstance(urls, str) else urls.get(table_parts(model)[0], "")
    is_sfid = sfid is not None and sfid.isascii() and sfid.isalnum()
    return f"{base.rstrip('/')}/{sfid}" if base and is_sfid else ""


class TimelineMixin:
    """For the project's admin of a connected model: its page links to the timeline.

    It is needed where ``hc_signals`` comes behind ``django.contrib.admin`` in INSTALLED_APPS. It replaces the template
    of the form. An admin with a template of its own has ``{% load hc_signals %}{% timeline_url as url %}`` instead.
    """

    change_form_template: Any = "admin/hc_signals/connected_form.html"
