"""``enqueue_on_change``: enqueues a task for each change, for work that takes too long for the worker."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, TypedDict, Unpack

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


class ProcrastinateTask(Protocol):
    """A task of Procrastinate."""

    @property
    def func(self) -> Callable[..., Any]:
        """The function."""

    @property
    def defer(self) -> Callable[..., Any]:
        """Enqueue the task."""


class DramatiqActor(Protocol):
    """An actor of Dramatiq."""

    @property
    def fn(self) -> Callable[..., Any]:
        """The function."""

    @property
    def send(self) -> Callable[..., Any]:
        """Enqueue the task."""


class HueyTask(Protocol):
    """A task of Huey; a call enqueues it."""

    @property
    def func(self) -> Callable[..., Any]:
        """The function."""

    @property
    def call_local(self) -> Callable[..., Any]:
        """Call the function."""


class RqTask(Protocol):
    """A function with the decorator ``job`` of RQ or django-rq."""

    @property
    def enqueue(self) -> Callable[..., Any]:
        """Enqueue the function."""

    @property
    def __globals__(self) -> dict[str, Any]:
        """Only functions have it."""


Task = DjangoTask | CeleryTask | ProcrastinateTask | DramatiqActor | HueyTask | RqTask


class Filters(TypedDict, total=False):
    """Arguments of :func:`~hc_signals.receivers.on_change`, without the model."""

    fields: Collection[str]
    to: Mapping[str, Any] | None
    from_: Mapping[str, Any] | None
    types: Collection[str]
    settled: bool
    dispatch_uid: str


class _Queue(NamedTuple):
    """How the tasks of one queue look."""

    name: str
    put: str
    """The method that enqueues the task, with the task's own arguments."""
    function: str
    """The attribute with the project's function; empty: the task is the function."""
    mark: str = "__call__"
    """A further attribute that the task has."""


_QUEUES = (
    _Queue("Django Tasks", "enqueue", "func", "module_path"),
    _Queue("Celery", "delay", "run"),
    _Queue("Procrastinate", "defer", "func"),
    _Queue("Dramatiq", "send", "fn"),
    _Queue("Huey", "__call__", "func", "call_local"),
    _Queue("RQ", "enqueue", "", "__globals__"),
)


def _queue_of(task: Any) -> _Queue:
    for queue in _QUEUES:
        if all(hasattr(task, name) for name in (queue.put, queue.function, queue.mark) if name):
            return queue
    raise ConfigurationError(
        f"enqueue_on_change got {task!r}; expected a task of {', '.join(queue.name for queue in _QUEUES)}. "
        "For another queue, enqueue the task in a receiver."
    )


def enqueue_on_change(model: type[Model], task: Task, **filters: Unpack[Filters]) -> None:
    """Enqueue a task for each change, instead of calling a receiver.

    The task is called with keyword arguments that survive JSON: ``model`` (label), ``record_id`` (sfid, or None),
    ``change_type``, ``changed_fields`` (list) and ``event_id`` (the same for every attempt).

    It is enqueued before the worker's position is committed. A queue in the same database commits together with the
    position. Any other broker gets each task at least once: after a crash perhaps twice, with the same ``event_id``.
    If the broker cannot be reached, the delivery is stored and retried like any other. A dry run enqueues nothing.

    Args:
        model: as for :func:`~hc_signals.receivers.on_change`.
        task: a task of Django Tasks (``django.tasks``, ``django_tasks``), Celery, Procrastinate, Dramatiq, Huey or
            RQ (``django_rq.job``).
        filters: ``fields``, ``to``, ``from_``, ``types``, ``settled``, ``dispatch_uid`` as for
            :func:`~hc_signals.receivers.on_change`.

    Raises:
        ConfigurationError: ``task`` is not one of these, or a filter is wrong.
    """
    queue = _queue_of(task)
    function: Any = getattr(task, queue.function) if queue.function else task
    put = getattr(task, queue.put)

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
