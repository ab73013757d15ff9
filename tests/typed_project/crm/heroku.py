"""Heroku Connect's API, trigger log and stored deliveries."""

import datetime
from typing import Any, assert_type

from crm.models import Account
from hc_signals.heroku.api import HerokuConnectAPI, check_health
from hc_signals.heroku.mappings import get_mapping
from hc_signals.models import Delivery, TriggerLog, TriggerLogArchive


def report(api: HerokuConnectAPI) -> None:
    for connection in api.connections():
        assert_type(connection, dict[str, Any])
    print(check_health(api), get_mapping())


def show() -> None:
    log = TriggerLog.objects.failed().latest()
    assert_type(log, TriggerLog)
    assert_type(log.state, str)
    assert_type(log.sf_message, str | None)
    assert_type(log.created_at, datetime.datetime | None)
    assert_type(log.values_as_dict, dict[str, str | None])
    for row in log.related():
        print(row.action)
    print(TriggerLogArchive.objects.count())
    delivery = Delivery.objects.get()
    assert_type(delivery, Delivery)
    assert_type(delivery.state, str)
    assert_type(delivery.attempt, int)
    print(Account.get_heroku_connect_mapping())
