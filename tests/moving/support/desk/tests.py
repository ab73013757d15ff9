"""Tests of records that the project writes."""

from unittest import mock

from django.contrib.auth.models import User
from django.test import TestCase
from django.urls import reverse
from heroku_connect.models import TriggerLog

from desk.models import Contact, Ticket, Visit


class DeskTests(TestCase):
    def setUp(self):
        self.contact = Contact.objects.create(last_name="Ada", phone="123", sf_id="003000000000001AAA")
        self.ticket = Ticket.objects.create(title="Help", stage="New", contact=self.contact)
        self.client.force_login(User.objects.create_superuser("boss"))

    def test_tickets_are_edited_in_the_admin(self):
        address = reverse("admin:desk_ticket_change", args=[self.ticket.pk])
        form = {"title": "Help", "stage": "Done", "contact": self.contact.sf_id}
        page = self.client.post(address, form)
        self.assertEqual(page.status_code, 302, page.content)
        self.ticket.refresh_from_db()
        self.assertEqual((self.ticket.stage, self.ticket.contact), ("Done", self.contact))

    def test_visits_know_the_contact_by_its_external_id(self):
        Visit.objects.create(contact=self.contact, note="at home")
        self.assertEqual(Visit.objects.get(contact__last_name="Ada").contact_id, self.contact.external_id)
        self.assertEqual(len(Contact.objects.get(visit__note="at home").external_id.hex), 32)

    def test_failures_are_shown(self):
        self.assertEqual(self.client.get(reverse("admin:app_list", args=["desk"])).status_code, 200)
        self.assertTrue(reverse("admin:heroku_connect_triggerlog_changelist"))
        self.assertEqual(TriggerLog._meta.get_field("sf_message").null, True)

    def test_status(self):
        answer = [{"id": "1", "name": "one", "state": "BUSY"}, {"id": "2", "name": "two", "state": "PAUSED"}]
        with mock.patch("status.views.utils.get_connections", return_value=answer):
            self.assertEqual(self.client.get("/status/").json(), {"bad": ["two"]})
