"""The example's app; its receivers are connected when Django is ready."""

from django.apps import AppConfig


class CrmConfig(AppConfig):
    name = "example.crm"
    label = "crm"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from example.crm import receivers  # noqa: F401  (connects them)
