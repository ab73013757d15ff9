"""Tests with a factory of records."""

import datetime
from decimal import Decimal

from crm.models import Account, Opportunity, User
from django.db.models import F, Sum
from django.test import TestCase
from heroku_connect.test.utils import no_heroku_connect_write_restrictions

from advice.models import Recommendation


def make(model, number, **values):
    with no_heroku_connect_write_restrictions():
        return model.objects.create(sf_id=f"{model.__name__[:3]}{number:012}AAA", **values)


class RecommendationTests(TestCase):
    def setUp(self):
        boss = make(User, 1, Name="Grace", IsActive=True)
        self.user = make(User, 2, Name="Ada", Manager=boss, City="London")
        self.account = make(
            Account,
            1,
            Name="Acme",
            Owner=self.user,
            AnnualRevenue=Decimal(5000),
            NumberOfEmployees=12,
            Rating="Hot",
            BillingCity="Paris",
            BillingLatitude=Decimal("48.8566"),
            LastViewedDate=datetime.datetime(2024, 5, 6, 7, 8, tzinfo=datetime.UTC),
        )

    def test_values_are_read_as_they_were_written(self):
        account = Account.objects.get(Owner__Manager__Name="Grace")
        self.assertEqual((account.BillingCity, account.ShippingCity), ("Paris", None))
        self.assertEqual(account.BillingLatitude, Decimal("48.8566"))
        self.assertEqual((account.AnnualRevenue, account.NumberOfEmployees), (Decimal(5000), 12))
        self.assertEqual(account.LastViewedDate, datetime.datetime(2024, 5, 6, 7, 8, tzinfo=datetime.UTC))
        self.assertEqual(account.get_Rating_display(), "Hot")

    def test_sums(self):
        for number in (1, 2):
            make(Opportunity, number, Account=self.account, Amount=Decimal("10.50"), Probability=50)
        found = Account.objects.annotate(open=Sum("opportunity__Amount")).get()
        self.assertEqual(found.open, Decimal("21.00"))
        self.assertEqual(Opportunity.objects.filter(Amount__gt=F("Probability") / 10).count(), 2)

    def test_recommendations_go_with_their_account(self):
        Recommendation.objects.create(score=0.5, account=self.account, owner=self.user)
        self.assertEqual(Recommendation.objects.get(account__BillingCity="Paris").owner.City, "London")
        with no_heroku_connect_write_restrictions():
            self.account.delete()
        self.assertEqual(Recommendation.objects.count(), 0)

    def test_fixtures_are_dumped_and_loaded(self):
        from django.core import serializers

        dumped = serializers.serialize("json", Account.objects.all())
        with no_heroku_connect_write_restrictions():
            Account.objects.all().delete()
            for each in serializers.deserialize("json", dumped):
                each.save()
        self.assertEqual(Account.objects.get().Owner, self.user)
