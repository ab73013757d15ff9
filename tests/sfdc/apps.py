"""A Salesforce-shaped app: every field class, inheritance, awkward names."""

from django.apps import AppConfig


class SfdcConfig(AppConfig):
    name = "tests.sfdc"
    label = "sfdc"
    default_auto_field = "django.db.models.BigAutoField"
