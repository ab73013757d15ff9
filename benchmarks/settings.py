"""Django's settings of the measuring process and of the measured workers. BENCH_URL names the server."""

import os

import dj_database_url

SECRET_KEY = "not a secret: nothing is served"
DATABASES = {"default": dj_database_url.parse(os.environ["BENCH_URL"])}
DATABASE_ROUTERS = ["hc_signals.db.router.HerokuConnectRouter"]
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "pgtrigger",
    "hc_signals",
    "benchmarks.records",
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
HEROKU_CONNECT_SCHEMA = "salesforce"
HC_SIGNALS = {
    "SHARDS": int(os.environ.get("BENCH_SHARDS", "1")),
    "CONSUMER": os.environ.get("BENCH_CONSUMER", "default"),
    # A worker would install capture on the tables measured without it.
    "REPAIR_TRIGGERS": False,
}
