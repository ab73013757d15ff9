"""Heroku Connect's API and mapping."""

from typing import Any, assert_type

from crm.models import Account
from hc_signals.heroku.api import HerokuConnectAPI, check_health
from hc_signals.heroku.mappings import get_mapping


def report(api: HerokuConnectAPI) -> None:
    for connection in api.connections():
        assert_type(connection, dict[str, Any])
    print(check_health(api), get_mapping())
    assert_type(Account.get_heroku_connect_mapping(), dict[str, Any])
    assert_type(Account.get_heroku_connect_table_name(), str)
