"""The Django app."""

from django.apps import AppConfig, apps
from django.core import checks


class HCSignalsConfig(AppConfig):
    """``INSTALLED_APPS = ["django.contrib.postgres", "pgtrigger", "hc_signals"]``; Django 6 requires the first."""

    name = "hc_signals"
    verbose_name = "Heroku Connect signals"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, except those that an installed django-heroku-connect registers itself."""
        from hc_signals.checks import ALL, OF_DJANGO_HEROKU_CONNECT

        registered_elsewhere = OF_DJANGO_HEROKU_CONNECT if apps.is_installed("heroku_connect") else ()
        for check, tags in ALL:
            if check not in registered_elsewhere:
                checks.register(check, *tags)
