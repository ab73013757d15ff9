"""The Django app."""

from django.apps import AppConfig


class HCSignalsConfig(AppConfig):
    """``INSTALLED_APPS = ["pgtrigger", "hc_signals"]``."""

    name = "hc_signals"
    verbose_name = "Heroku Connect signals"
    default_auto_field = "django.db.models.BigAutoField"
