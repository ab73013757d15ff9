"""The table that Heroku Connect writes."""

from django.db import models


class Account(models.Model):
    sfid = models.CharField(max_length=18, null=True)
    numberofemployees = models.FloatField(null=True)

    class Meta:
        managed = False
        db_table = 'salesforce"."account'
