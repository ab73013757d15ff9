"""Tests that create records of read-only models."""

from django.contrib.auth.models import User as Staff
from django.test import TestCase
from django.urls import reverse
from heroku_connect.db.exceptions import WriteNotSupportedError
from heroku_connect.test.utils import no_heroku_connect_write_restrictions
from salesforce.models import User

from feedback.models import Case, Comment


class CommentTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        with no_heroku_connect_write_restrictions():
            cls.user = User.objects.create(sf_id="005000000000001AAA", username="ada", email="ada@example.com")
            Case.objects.create(sf_id="500000000000001AAA", subject="Help", owner=cls.user)
        cls.boss = Staff.objects.create_superuser("boss")

    def setUp(self):
        self.client.force_login(self.boss)

    def test_records_are_guarded(self):
        with self.assertRaises(WriteNotSupportedError):
            self.user.save()

    def test_the_lookup_leads_to_the_other_app(self):
        case = Case.objects.select_related("owner").get(owner__username="ada")
        self.assertEqual((case.owner, case.owner_id), (self.user, "005000000000001AAA"))
        self.assertEqual([each.subject for each in self.user.cases.all()], ["Help"])

    def test_comments_are_written_in_the_admin(self):
        form = {"user": self.user.sf_id, "text": "a comment"}
        self.client.post(reverse("admin:feedback_comment_add"), form)
        self.assertEqual(Comment.objects.get().user, self.user)

    def test_users_are_shown_in_the_admin(self):
        page = self.client.get(reverse("admin:salesforce_user_changelist"))
        self.assertContains(page, "ada@example.com")
        self.assertContains(self.client.get(reverse("admin:salesforce_user_change", args=[self.user.pk])), "ada")

    def test_a_user_that_is_gone_leaves_the_comment(self):
        Comment.objects.create(user=self.user, text="a comment")
        with no_heroku_connect_write_restrictions():
            self.user.delete()
        self.assertIsNone(Comment.objects.get().user)
