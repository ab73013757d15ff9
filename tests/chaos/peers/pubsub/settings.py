"""Settings of the project."""

import dj_database_url

SECRET_KEY = "not secret"
DATABASES = {"default": dj_database_url.config()}
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = False  # as the page on recovery says
INSTALLED_APPS = ["pgtrigger", "pgpubsub", "tests.chaos.peers.pubsub.apps.PubsubConfig"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
