"""HC_SIGNALS: its defaults, and errors for wrong keys and values."""

from typing import Any

import pytest
from django.test import override_settings

from hc_signals.conf import Conf, get_conf
from hc_signals.exceptions import ConfigurationError


def test_keys_have_defaults() -> None:
    assert get_conf() == Conf(
        CONSUMER="default",
        SHARDS=1,
        BATCH_SIZE=1000,
        POLL_INTERVAL=60.0,
        MAX_TRANSACTION_SECONDS=3.0,
        RETENTION_HOURS=72.0,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"BATCHSIZE": 1}, "unknown key 'BATCHSIZE'; did you mean 'BATCH_SIZE'?"),
        ({"xyz": 1}, "unknown key 'xyz'; known keys: CONSUMER, "),
        ({"SHARDS": "4"}, "HC_SIGNALS['SHARDS'] is '4'; expected int"),
        ({"SHARDS": True}, "HC_SIGNALS['SHARDS'] is True; expected int"),
        ({"SHARDS": 0}, "expected a number above 0"),
        ({"POLL_INTERVAL": float("nan")}, "expected a number above 0"),
        ({"CONSUMER": ""}, "HC_SIGNALS['CONSUMER'] is empty"),
        ([], "HC_SIGNALS is a list; expected a dict"),
    ],
)
def test_wrong_setting_is_refused(given: Any, message: str) -> None:
    with override_settings(HC_SIGNALS=given), pytest.raises(ConfigurationError) as error:
        get_conf()
    assert message in str(error.value)


def test_integer_is_accepted_for_seconds() -> None:
    with override_settings(HC_SIGNALS={"POLL_INTERVAL": 5}):
        assert get_conf().POLL_INTERVAL == 5
