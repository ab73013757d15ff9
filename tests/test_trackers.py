"""With DJANGO_SIGNALS, the real FieldTracker of django-model-utils knows the changed fields."""

import re
from pathlib import Path

from tests import kit_project

MODELS = """
from django.db import models
from model_utils import FieldTracker


class Lead(hc_models.HerokuConnectModel):
    sf_object_name = "Lead"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    company = hc_models.Text(sf_field_name="Company", max_length=255)
    rating = hc_models.Number(sf_field_name="Rating__c", max_digits=8, decimal_places=2)
    parent = hc_models.Lookup(
        "self", sf_field_name="Parent__c", to_field="sf_id", on_delete=models.DO_NOTHING, related_name="+"
    )
    tracker = FieldTracker()


class LeadProxy(Lead):
    class Meta:
        proxy = True
"""

TESTS = """
from crm.models import Lead, LeadProxy
from django.db.models.signals import post_delete, post_save
from hc_signals.testing.cases import HerokuConnectTestCase


class TrackerTests(HerokuConnectTestCase):
    def setUp(self):
        super().setUp()
        self.heard = []
        for signal in (post_save, post_delete):
            signal.connect(self.hear, sender=Lead)
            self.addCleanup(signal.disconnect, self.hear, sender=Lead)

    def hear(self, instance, created=None, update_fields=None, **kwargs):
        self.heard.append((created, instance.tracker.changed(), update_fields))
        self.company = instance.company

    def changed(self):
        self.deliver_changes()
        (created, changed, update_fields), = self.heard
        self.heard.clear()
        return created, changed, update_fields

    def test_tracker_knows_salesforces_changes_like_the_apps(self):
        sfid, = self.heroku_connect.insert(Lead, company="Acme", rating=1)
        created, changed, _ = self.changed()
        self.assertTrue(created)
        self.assertEqual(set(changed.values()), {None})
        self.assertLessEqual({"id", "company", "rating", "sf_id"}, set(changed))
        self.assertNotIn("parent_id", changed)

        self.heroku_connect.update(Lead, sfid, company="Acme Ltd", parent=sfid)
        self.assertEqual(self.changed(), (False, {"company": "Acme", "parent_id": None}, {"company", "parent"}))
        self.assertEqual(self.company, "Acme Ltd")

        self.heroku_connect.update(Lead, sfid, parent=None)
        self.assertEqual(self.changed(), (False, {"parent_id": sfid}, {"parent"}))

        lead = Lead.objects.get()
        lead.company = "by the app"
        lead.save()
        (_, changed, _), = self.heard
        self.assertEqual(changed, {"company": "Acme Ltd"})
        self.heard.clear()

        self.heroku_connect.delete(Lead, sfid)
        self.assertEqual(self.changed(), (None, {}, None))

    def test_proxies(self):
        heard = []
        post_save.connect(lambda instance, **kwargs: heard.append(instance), sender=LeadProxy, weak=False)
        sfid, = self.heroku_connect.insert(Lead, company="Acme")
        self.heroku_connect.update(Lead, sfid, company="Acme Ltd")
        self.deliver_changes()
        self.assertEqual([type(each) for each in heard], [LeadProxy, LeadProxy])
        self.assertEqual(heard[1].tracker.changed(), {"company": "Acme"})
        self.assertFalse(heard[1]._state.adding)
"""

SETTINGS = """
HC_SIGNALS = {"DJANGO_SIGNALS": ["crm.Lead"]}
TEST_RUNNER = "hc_signals.testing.cases.HerokuConnectRunner"
"""


def test_field_tracker_knows_the_old_values(tmp_path: Path) -> None:
    files = {"crm/models.py": MODELS, "shop/settings.py": SETTINGS, "crm/tests.py": TESTS}
    kit_project.make(tmp_path, files)
    printed = kit_project.run(tmp_path, "manage.py", "test")
    assert re.search(r"Ran 2 tests in .*\n\nOK\n", printed), printed
