"""Settings of the example project. The database comes from DATABASE_URL, as on Heroku."""

import os
import secrets

import dj_database_url

# Without SECRET_KEY each process makes its own: sessions end with it, and no file holds a secret.
SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
DEBUG = os.environ.get("DEBUG") == "1"
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")
# Django asks before a request whether its connection still works: Heroku restarts servers.
DATABASES = {
    "default": dj_database_url.config(
        default="postgres://postgres@127.0.0.1:5432/postgres", conn_max_age=600, conn_health_checks=True
    )
}
DATABASE_ROUTERS = ["hc_signals.db.router.HerokuConnectRouter"]
INSTALLED_APPS = [
    "hc_signals",  # before the admin, whose pages of records then link to their timelines
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "pgtrigger",
    "example.crm",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "example.urls"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # serve the admin's files from its package, without collectstatic
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
HEROKU_CONNECT_SCHEMA = "salesforce"
