"""``enqueue_on_change``: enqueues a task for each change, for work that takes too long for the worker."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Protocol, TypedDict, Unpack

from django.db.models import Model

from hc_signals.events import ChangeEvent
from hc_signals.exceptions import ConfigurationError
from hc_signals.receivers import on_change


class DjangoTask(Protocol):
    """A task of Django Tasks whose function takes the arguments that are enqueued."""

    @property
    def func(self) -> Callable[..., Any]:
        """The function."""

    def enqueue(
        self, *, model: str, record_id: str | None, change_type: str, changed_fields: list[str], event_id: str
    ) -> Any:
        """Enqueue the task."""


class CeleryTask(Protocol):
    """A task of Celery whose function takes the arguments that are enqueued."""

    def run(
        self, *, model: str, record_id: str | None, change_type: str, changed_fields: list[str], event_id: str
    ) -> Any:
        """The function."""

    @property
    def apply_async(self) -> Callable[..., Any]:
        """Enqueue the task."""


class Filters(TypedDict, total=False):
    """Arguments of :func:`~hc_signals.receivers.on_change`, without the model."""

    fields: Collection[str]
    to: Mapping[str, Any] | None
    from_: Mapping[str, Any] | None
    types: Collection[str]
    dispatch_uid: str


def enqueue_on_change(model: type[Model], task: DjangoTask | CeleryTask, **filters: Unpack[Filters]) -> None:
    """Enqueue a task for each change, instead of calling a receiver.

    The task is called with keyword arguments that survive JSON: ``model`` (label), ``record_id`` (sfid, or None),
    ``change_type``, ``changed_fields`` (list) and ``event_id`` (the same for every attempt).

    It is enqueued before the worker's position is committed. A queue in the same database commits together with the
    position. Any other broker gets each task at least once: after a crash perhaps twice, with the same ``event_id``.
    If the broker cannot be reached, the delivery is stored and retried like any other. A dry run enqueues nothing.

    Args:
        model: as for :func:`~hc_signals.receivers.on_change`.
        task: a task of Django Tasks (``django.tasks``, ``django_tasks``) or of Celery.
        filters: ``fields``, ``to``, ``from_``, ``types``, ``dispatch_uid`` as for
            :func:`~hc_signals.receivers.on_change`.

    Raises:
        ConfigurationError: ``task`` is no such task, or a filter is wrong.
    """
    if hasattr(task, "enqueue") and hasattr(task, "func"):
        function, put = task.func, task.enqueue
    elif hasattr(task, "apply_async") and hasattr(task, "run"):
        function, put = task.run, partial(_apply, task)
    else:
        raise ConfigurationError(f"enqueue_on_change got {task!r}; expected a task of Django Tasks or of Celery.")

    def enqueue(event: ChangeEvent[Any], sender: type[Model], **kwargs: Any) -> None:
        if event.dry_run:
            return
        put(
            model=sender._meta.label,
            record_id=event.record_id,
            change_type=event.change_type,
            changed_fields=list(event.changed_fields),
            event_id=event.event_id,
        )

    # Failures are stored under the name of the task.
    enqueue.__module__, enqueue.__qualname__ = function.__module__, function.__qualname__
    on_change(model, **filters)(enqueue)


def _apply(task: Any, **arguments: Any) -> None:
    task.apply_async(kwargs=arguments)
