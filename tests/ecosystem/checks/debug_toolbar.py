"""django-debug-toolbar: on each page of ours."""

from typing import Any

from django.urls import include, path

PACKAGES = ("django-debug-toolbar",)
APPS = ["debug_toolbar"]
SETTINGS: dict[str, Any] = {
    "DEBUG": True,
    "MIDDLEWARE": ["debug_toolbar.middleware.DebugToolbarMiddleware"],
    "DEBUG_TOOLBAR_CONFIG": {"SHOW_TOOLBAR_CALLBACK": lambda request: True, "IS_RUNNING_TESTS": False},
}


def urls() -> list[Any]:
    return [path("__debug__/", include("debug_toolbar.urls"))]


def check(site: Any) -> None:
    from django.urls import reverse

    client = site.client()
    for name in ("change", "delivery", "position", "minute"):
        page = client.get(reverse(f"admin:hc_signals_{name}_changelist"))
        assert b"djDebug" in page.content, name
