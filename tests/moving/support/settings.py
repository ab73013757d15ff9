"""Settings of a project that uses django-heroku-connect."""

import dj_database_url

SECRET_KEY = "x"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "health_check",
    "heroku_connect",
    "heroku_connect.contrib.heroku_connect_health_check",
    "desk",
    "status",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
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
ROOT_URLCONF = "urls"
DATABASES = {"default": dj_database_url.config(engine="heroku_connect.db.backends.postgresql")}
DATABASE_ROUTERS = ["heroku_connect.db.router.HerokuConnectRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
