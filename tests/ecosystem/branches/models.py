"""A table in each tenant's schema."""

from django.db import models


class Note(models.Model):
    """What a receiver wrote."""

    text = models.TextField()
