"""The timeline of a record: what the admin shows of its changes, of the calls of receivers, and of the app's writes."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User as Login
from django.test import Client
from django.urls import reverse
from example.crm.models import Account

from hc_signals import signals
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver

SFID = "001000000000001AAA"


def address(text: str = SFID, label: str = "crm.Account") -> str:
    return reverse("admin:hc_signals_change_timeline", args=[label, text])


@pytest.fixture
def site(captured: HerokuConnect) -> Iterator[Client]:
    """The admin as a superuser sees it."""
    client = Client()
    client.force_login(Login.objects.create_superuser("root"))
    yield client


def test_changes_and_calls_are_shown_newest_first(site: Client, captured: HerokuConnect, connect: Any) -> None:
    connect(signals.record_changed, lambda **kwargs: None, Account)
    captured.insert(Account, sf_id=SFID, name="Acme")
    captured.update(Account, SFID, name="Ajax")
    deliver()
    response = site.get(address())
    assert response.status_code == 200
    entries = response.context["history"].entries
    assert [entry.title for entry in entries] == ["UPDATE", "CREATE"]
    assert all("&lt;lambda&gt;" in " ".join(call.receiver for call in entry.calls) for entry in entries)
