"""django-cachalot: caches queries of tables; Salesforce's changes must forget them."""

from typing import Any

from tests.ecosystem.page import run_block
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
    run_block("from cachalot.api import invalidate", Account=lead())


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
    check_warning()


def check_warning() -> None:
    """With the log in the cache, the system check says so."""
    from cachalot.settings import cachalot_settings
    from django.core import checks
    from django.test import override_settings

    with override_settings(CACHALOT_UNCACHABLE_APPS=[]):
        cachalot_settings.reload()
        assert "hc_signals.W015" in [each.id for each in checks.run_checks()]
    cachalot_settings.reload()
    assert "hc_signals.W015" not in [each.id for each in checks.run_checks()]
