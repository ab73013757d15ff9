"""django-cacheops: caches queries; Salesforce's changes invalidate them."""

from typing import Any

from tests.ecosystem import needs
from tests.ecosystem.page import run_block
from tests.ecosystem.records import lead
from tests.ecosystem.site import PORT, equal

PACKAGES = ("django-cacheops",)
NEEDS = needs.redis
APPS = ["cacheops"]
SETTINGS: dict[str, Any] = {
    "CACHEOPS_REDIS": f"redis://127.0.0.1:{PORT}/1",
    "CACHEOPS": {"shop.*": {"ops": "all", "timeout": 600}},
    "CACHEOPS_DEGRADE_ON_FAILURE": True,
}


def models() -> None:
    run_block("from cacheops import invalidate_obj", Account=lead())


def check(site: Any) -> None:
    from tests.ecosystem.shop.models import Lead

    with site.redis():
        (sfid,) = site.heroku.insert(Lead, company="Acme", status="Open")
        site.deliver()
        equal([each.company for each in Lead.objects.filter(status="Open")], ["Acme"])
        equal([each.company for each in Lead.objects.filter(status="Closed")], [])
        equal(Lead.objects.get(sf_id=sfid).company, "Acme")
        site.heroku.update(Lead, sfid, company="Acme Ltd", status="Closed")
        site.deliver()
        equal(Lead.objects.get(sf_id=sfid).company, "Acme Ltd")
        equal([each.company for each in Lead.objects.filter(status="Closed")], ["Acme Ltd"])
        equal([each.company for each in Lead.objects.filter(status="Open")], [])
        site.heroku.delete(Lead, sfid)
        site.deliver()
        equal(Lead.objects.filter(sf_id=sfid).first(), None)
        equal(Lead.objects.filter(status="Closed").count(), 0)
