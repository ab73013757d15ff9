"""The Django app."""

from django.apps import AppConfig, apps
from django.core import checks


class HCSignalsConfig(AppConfig):
    """``INSTALLED_APPS = ["django.contrib.postgres", "pgtrigger", "hc_signals"]``; Django 6 asks for the first."""

    name = "hc_signals"
    verbose_name = "Heroku Connect signals"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks; django-heroku-connect's own do the same work where it is installed."""
        from hc_signals.checks import database, project
        from hc_signals.checks.relations import check_relations, check_unique_object_names

        if not apps.is_installed("heroku_connect"):
            checks.register(check_relations, checks.Tags.models)
            checks.register(check_unique_object_names, checks.Tags.models)
        for check in project.ALL:
            checks.register(check, "hc_signals")
        checks.register(database.check_capture, "hc_signals", checks.Tags.database)
