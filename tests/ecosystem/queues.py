"""What each task queue must do with enqueue_on_change: run the task once for each change."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from tests.ecosystem.records import lead
from tests.ecosystem.site import Site, equal, wait_until


def declare_tables() -> Any:
    """Declare the connected model, which is returned, and the table in which the task writes."""
    from django.db import models

    class Ran(models.Model):
        event_id = models.TextField()
        record_id = models.TextField(null=True)
        change_type = models.TextField()

        class Meta:
            app_label = "shop"

    return lead()


def ran(model: str, record_id: str | None, change_type: str, changed_fields: list[str], event_id: str) -> None:
    """The task."""
    from tests.ecosystem.shop.models import Ran

    Ran.objects.create(event_id=event_id, record_id=record_id, change_type=change_type)


def check_queue(
    site: Site,
    task: Any,
    worker: Callable[[], AbstractContextManager[Any]],
    count: Callable[[], int] | None = None,
) -> None:
    """Deliver two changes, run the queue's worker, and compare what the task wrote.

    Args:
        task: for enqueue_on_change; None if the check has connected a receiver that enqueues the task.
        worker: runs the queue's worker during a block.
        count: returns the tasks that are enqueued, for a queue in the same database: then nothing may be enqueued by a
            page that is rolled back.
    """
    from hc_signals.enqueueing import enqueue_on_change
    from tests.ecosystem.shop.models import Lead, Ran

    if task is not None:
        enqueue_on_change(Lead, task)
    (sfid,) = site.heroku.insert(Lead, company="Acme")
    site.heroku.update(Lead, sfid, company="Acme Ltd")
    if count:
        _check_rollback(site, count)
    site.deliver()
    site.deliver()
    if count:
        equal(count(), 2)
    with worker():
        wait_until(lambda: Ran.objects.count() >= 2, "the task for each change")
    equal(sorted(Ran.objects.values_list("record_id", "change_type")), [(sfid, "CREATE"), (sfid, "UPDATE")])
    equal(Ran.objects.values("event_id").distinct().count(), 2)


def _check_rollback(site: Site, count: Callable[[], int]) -> None:
    """Kill the page by a Ctrl-C after the tasks were enqueued."""
    from hc_signals.signals import record_changed

    def dies(**kwargs: Any) -> None:
        raise KeyboardInterrupt

    record_changed.connect(dies)
    try:
        site.deliver()
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("the page was not rolled back")
    finally:
        record_changed.disconnect(dies)
    equal(count(), 0)
