"""django-cachalot: caches queries of tables; Salesforce's changes must forget them."""

from typing import Any

from tests.ecosystem.records import lead
from tests.ecosystem.site import equal

PACKAGES = ("django-cachalot",)
APPS = ["cachalot"]
SETTINGS: dict[str, Any] = {
    "CACHALOT_UNCACHABLE_APPS": ["hc_signals"],
    "CACHES": {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cached"}},
}


def make_site() -> Any:
    """Create the table of the cache."""
    from django.core.management import call_command

    from tests.ecosystem.site import Site

    call_command("createcachetable")
    return Site()


def models() -> None:
    from cachalot.api import invalidate
    from django.dispatch import receiver

    from hc_signals.signals import records_changed

    @receiver(records_changed, sender=lead(), weak=False)
    def forget(sender: Any, using: str, **kwargs: Any) -> None:
        invalidate(sender, db_alias=using)


def check(site: Any) -> None:
    from hc_signals.models import Change
    from tests.ecosystem.shop.models import Lead

    (sfid,) = site.heroku.insert(Lead, company="Acme")
    site.deliver()
    equal(Lead.objects.get(sf_id=sfid).company, "Acme")
    count = Change.objects.count()
    site.heroku.update(Lead, sfid, company="Acme Ltd")
    equal(Lead.objects.get(sf_id=sfid).company, "Acme")
    site.deliver()
    equal(Lead.objects.get(sf_id=sfid).company, "Acme Ltd")
    equal(Change.objects.count(), count + 1)
