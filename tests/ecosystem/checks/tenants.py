"""django-tenants: the log and Heroku Connect's tables are shared, a receiver writes into a tenant's schema."""

from typing import Any

from tests.ecosystem.page import run_block
from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import Site, equal

PACKAGES = ("django-tenants",)
DATABASE = {"ENGINE": "django_tenants.postgresql_backend"}


def settings() -> dict[str, Any]:
    """Return the settings: all apps but one are shared."""
    from example import settings as example

    page = run_block("SHARED_APPS", INSTALLED_APPS=[*example.INSTALLED_APPS, "tests.ecosystem.shop"])
    return {
        **{name: page[name] for name in ("SHARED_APPS", "PGTRIGGER_MIGRATIONS")},
        "INSTALLED_APPS": ["django_tenants", "tests.ecosystem.branches"],
        "TENANT_APPS": ["tests.ecosystem.branches"],
        "TENANT_MODEL": "shop.Tenant",
        "TENANT_DOMAIN_MODEL": "shop.Domain",
        "DATABASE_ROUTERS": ["django_tenants.routers.TenantSyncRouter"],
        "MIDDLEWARE": ["django_tenants.middleware.main.TenantMainMiddleware"],
    }


def models() -> None:
    from django.dispatch import receiver
    from django_tenants.models import DomainMixin, TenantMixin
    from django_tenants.utils import schema_context

    from hc_signals.signals import record_changed

    class Tenant(TenantMixin):
        auto_create_schema = True

        class Meta:
            app_label = "shop"

    class Domain(DomainMixin):
        class Meta:
            app_label = "shop"

    @receiver(record_changed, sender=lead(), weak=False)
    def note(instance: Any, **kwargs: Any) -> None:
        from tests.ecosystem.branches.models import Note

        with schema_context("harbour"):
            Note.objects.create(text=instance.company)


def make_site() -> Site:
    """Make the schemas: the shared one, and one of a tenant."""
    from django.core.management import call_command

    from tests.ecosystem.shop.models import Domain, Tenant

    call_command("migrate_schemas", schema_name="public", verbosity=0, run_syncdb=True)
    site = Site(migrate=False)
    public = Tenant.objects.create(schema_name="public")
    Domain.objects.create(domain="testserver", tenant=public, is_primary=True)
    harbour = Tenant(schema_name="harbour")
    harbour.save(verbosity=0)
    call_command("migrate_schemas", schema_name="harbour", verbosity=0, run_syncdb=True)
    return site


def check(site: Any) -> None:
    from django.test import override_settings
    from django_tenants.utils import schema_context

    from tests.ecosystem.branches.models import Note

    for is_atomic in (True, False):
        with override_settings(HC_SIGNALS={"ATOMIC": is_atomic}):
            salesforces_changes(site)
        with schema_context("harbour"):
            equal([note.text for note in Note.objects.order_by("id")], ["Acme", "Acme Ltd"])
            Note.objects.all().delete()
