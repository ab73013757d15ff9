"""Tasks that changes enqueue."""

from typing import Any

from celery import Task, shared_task
from django_tasks import task

from crm.models import Account
from hc_signals.enqueueing import enqueue_on_change


@task()
def send_catalogue(
    model: str, record_id: str | None, change_type: str, changed_fields: list[str], event_id: str
) -> None: ...


@task()
def send_nothing(model: str) -> None: ...


def no_task(**kwargs: object) -> None: ...


enqueue_on_change(Account, send_catalogue, to={"industry": "Retail"}, types=["CREATE"])


@shared_task
def send_brochure(
    model: str, record_id: str | None, change_type: str, changed_fields: list[str], event_id: str
) -> None: ...


@shared_task(bind=True)
def send_bound(
    self: "Task[Any, Any]",
    model: str,
    record_id: str | None,
    change_type: str,
    changed_fields: list[str],
    event_id: str,
) -> None: ...


@shared_task
def send_wrong(model: str) -> None: ...


enqueue_on_change(Account, send_brochure, types=["DELETE"])
enqueue_on_change(Account, send_bound, types=["DELETE"])


def mistakes() -> None:
    enqueue_on_change(Account, send_nothing)  # type: ignore[arg-type]
    enqueue_on_change(Account, no_task)  # type: ignore[arg-type]
    enqueue_on_change(Account, send_catalogue, field=["name"])  # type: ignore[call-arg]
    enqueue_on_change(Account, send_wrong)  # type: ignore[arg-type]
