"""django-haystack: the search index follows Salesforce's changes."""

import tempfile
from typing import Any

from tests.ecosystem.page import run_block
from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-haystack", "Whoosh-Reloaded")
APPS = ["haystack"]
SETTINGS: dict[str, Any] = {
    "HAYSTACK_CONNECTIONS": {
        "default": {"ENGINE": "haystack.backends.whoosh_backend.WhooshEngine", "PATH": tempfile.mkdtemp()}
    },
}
SETTINGS |= {name: value for name, value in run_block("HAYSTACK_SIGNAL_PROCESSOR").items() if name.isupper()}


def models() -> None:
    lead()


def check(site: Any) -> None:
    from haystack.query import SearchQuerySet

    from tests.ecosystem.shop.models import Lead

    sfid = salesforces_changes(site)
    equal([each.object.sf_id for each in SearchQuerySet().auto_query("Acme Ltd")], [sfid])
    site.heroku.delete(Lead, sfid)
    site.deliver()
    equal(SearchQuerySet().auto_query("Acme").count(), 0)
