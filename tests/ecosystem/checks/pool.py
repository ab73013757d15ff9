"""psycopg's pool, by Django's OPTIONS."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes

PACKAGES = ("psycopg-pool", "psycopg")
DATABASE: dict[str, Any] = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2}}, "CONN_MAX_AGE": 0}


def models() -> None:
    lead()


def check(site: Any) -> None:
    from example.crm.models import Account, Seen

    from tests.ecosystem.site import wait_until

    salesforces_changes(site)
    before = Seen.objects.count()
    with site.listening("--concurrency", "4"):
        site.heroku.insert(Account, *({"name": f"a {number}"} for number in range(50)))
        wait_until(lambda: Seen.objects.count() == before + 50)
