"""``{% load hc_signals %}{% timeline_url as url %}``: the address of a record's timeline, on the page of the record."""

from typing import Any

from django import template
from django.db.models import Model

from hc_signals.admin.links import object_timeline_url

register = template.Library()


@register.simple_tag(takes_context=True)
def timeline_url(context: Any) -> str:
    """Return the address of the timeline of ``original``; empty if it is no record, or the user may not see it."""
    original, request = context.get("original"), context.get("request")
    if not isinstance(original, Model) or request is None:
        return ""
    return object_timeline_url(request, original)
