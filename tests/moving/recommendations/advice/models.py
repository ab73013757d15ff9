"""The project's own rows beside records."""

from crm.models import Account, User
from django.db import models


class Recommendation(models.Model):
    score = models.FloatField()
    account = models.ForeignKey(Account, to_field="sf_id", on_delete=models.CASCADE, db_constraint=False)
    owner = models.ForeignKey(User, to_field="sf_id", on_delete=models.CASCADE, db_constraint=False)
