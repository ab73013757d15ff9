"""django-prometheus: its database engine counts queries; hc_listen works through it."""

from typing import Any

from django.urls import include, path

from tests.ecosystem.site import equal

PACKAGES = ("django-prometheus",)
APPS = ["django_prometheus"]
DATABASE = {"ENGINE": "django_prometheus.db.backends.postgresql"}
SETTINGS: dict[str, Any] = {
    "MIDDLEWARE": [
        "django_prometheus.middleware.PrometheusBeforeMiddleware",
        "django_prometheus.middleware.PrometheusAfterMiddleware",
    ]
}


def urls() -> list[Any]:
    return [path("", include("django_prometheus.urls"))]


def check(site: Any) -> None:
    page = site.client().get("/metrics")
    equal(page.status_code, 200)
    assert b"django_db_execute_total" in page.content
