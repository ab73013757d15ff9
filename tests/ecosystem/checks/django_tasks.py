"""Django Tasks with its database backend, of the package or of Django 6 itself."""

from typing import Any

from tests.ecosystem.queues import check_queue

PACKAGES = ("django-tasks", "django-tasks-db")
APPS = ["django_tasks_db"]
SETTINGS: dict[str, Any] = {"TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}}


def models() -> None:
    import django

    from tests.ecosystem import queues

    queues.declare_tables()
    if django.VERSION >= (6,):
        from django.tasks import task
    else:
        from django_tasks import task
    queues.ran = task(queues.ran)


def check(site: Any) -> None:
    from django_tasks_db.models import DBTaskResult

    from tests.ecosystem import queues

    check_queue(site, queues.ran, lambda: site.manage("db_worker"), DBTaskResult.objects.count)
