"""enqueue_on_change: a task commits with the position, or exists at least once; its arguments survive JSON."""

import json
from typing import Any

import pytest
from celery import Celery, shared_task
from django.db import connection
from django_tasks import task
from django_tasks_db.models import DBTaskResult
from example.crm.models import Account

from hc_signals.enqueueing import enqueue_on_change
from hc_signals.exceptions import ConfigurationError
from hc_signals.signals import record_changed
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver

pytestmark = pytest.mark.usefixtures("disconnected")


done: list[dict[str, Any]] = []


@task
def send_mail(**arguments: Any) -> None:
    done.append(arguments)


@shared_task
def send_fax(**arguments: Any) -> None:
    done.append(arguments)


def test_task_in_the_same_database_commits_with_the_position(captured: HerokuConnect) -> None:
    enqueue_on_change(Account, send_mail, fields=["name"])
    (sfid,) = captured.insert(Account, name="a")
    captured.update(Account, sfid, name="b", industry="Retail")

    class PulledTheplug(KeyboardInterrupt):
        """A Ctrl-C, which ends the process: any other exception would be stored as the receiver's failure."""

    def dies(**kwargs: Any) -> None:
        raise PulledTheplug

    record_changed.connect(dies, weak=False)
    with pytest.raises(PulledTheplug):
        deliver()
    assert not DBTaskResult.objects.exists()
    record_changed.disconnect(dies)
    deliver()
    deliver()
    created, updated = [row.args_kwargs["kwargs"] for row in DBTaskResult.objects.order_by("enqueued_at")]
    assert created.pop("event_id") != updated.pop("event_id")
    assert created == {"model": "crm.Account", "record_id": sfid, "change_type": "CREATE", "changed_fields": []}
    assert updated["changed_fields"] == ["name", "industry"]


def test_queues_worker_runs_the_task(captured: HerokuConnect) -> None:
    enqueue_on_change(Account, send_mail)
    captured.insert(Account, name="a")
    deliver()
    done.clear()
    result = DBTaskResult.objects.get()
    result.task.call(*result.args_kwargs["args"], **result.args_kwargs["kwargs"])
    assert done[0]["change_type"] == "CREATE"


def test_celery_task_is_enqueued_at_least_once(captured: HerokuConnect) -> None:
    app = Celery(broker="memory://", set_as_current=True)
    fax = app.tasks[f"{__name__}.send_fax"]
    enqueue_on_change(Account, fax)
    (sfid,) = captured.insert(Account, name="a")
    deliver()
    with app.connection_for_read() as broker:
        message = broker.SimpleQueue("celery").get(block=False)
    _, arguments, _ = json.loads(message.body)
    assert arguments["record_id"] == sfid
    # Without a broker the delivery waits, under the name of the task.
    app.conf.update(broker_url="amqp://127.0.0.1:1", task_publish_retry=False, broker_connection_timeout=0.2)
    app.pool.force_close_all()
    app.amqp._producer_pool = None
    captured.update(Account, sfid, name="b")
    deliver()
    with connection.cursor() as cursor:
        cursor.execute("SELECT receiver, state FROM public.hc_signals_delivery")
        assert cursor.fetchall() == [(f"{__name__}.send_fax", "retry")]


def test_other_objects_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected a task of Django Tasks, Celery, Procrastinate, "):
        enqueue_on_change(Account, print)
    with pytest.raises(ConfigurationError, match=r"test_enqueueing\.send_mail: crm.Account has no field"):
        enqueue_on_change(Account, send_mail, fields=["nme"])
