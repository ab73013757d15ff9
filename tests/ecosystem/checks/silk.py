"""django-silk: profiles each page of ours."""

from typing import Any

from django.urls import include, path

PACKAGES = ("django-silk",)
APPS = ["silk"]
SETTINGS: dict[str, Any] = {"MIDDLEWARE": ["silk.middleware.SilkyMiddleware"]}


def urls() -> list[Any]:
    return [path("silk/", include("silk.urls", namespace="silk"))]


def check(site: Any) -> None:
    from silk.models import Request

    site.client().get("/admin/hc_signals/change/")
    assert Request.objects.filter(path="/admin/hc_signals/change/", num_sql_queries__gt=0).exists()
    equal_page = site.client().get("/silk/")
    assert equal_page.status_code == 200
