"""Settings of a user's project that mypy and pyright check."""

SECRET_KEY = "typed"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_tasks",
    "hc_signals",
    "crm",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "typed"}}
TASKS = {"default": {"BACKEND": "django_tasks.backends.dummy.DummyBackend"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
