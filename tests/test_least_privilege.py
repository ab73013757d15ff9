"""Writer, installer and worker are three roles, each with the grants of docs/security.md and no more."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import pausing
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.conf import Conf
from hc_signals.log.rotation import rotate
from hc_signals.models import Delivery
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import BARE, deliver
from tests.server import own

ROLES = ("hc_writer", "hc_installer", "hc_worker", "hc_nobody")


def with_own_roles(sql: str) -> str:
    """Put the names of this process's roles into SQL that has those of the page."""
    return re.sub("|".join(rf"\b{name}\b" for name in ROLES), lambda name: own(name[0]), sql)


ADMIN, OWNER, INSTALLER = map(
    with_own_roles,
    re.findall(r"```sql\n(.*?)```", (Path(__file__).parent.parent / "docs" / "security.md").read_text(), re.DOTALL),
)


@contextmanager
def role(name: str) -> Iterator[None]:
    """Be connected to the bare database as one of the roles."""
    before = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict |= {"NAME": BARE, "OPTIONS": {"options": f"-c role={own(name)}"}}
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict |= before


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def roles(transactional_db: None, bare_database: Any) -> Iterator[None]:
    """The roles on a bare database, with the grants of the page."""
    bare_database.autocommit = True
    bare_database.execute(with_own_roles("CREATE ROLE hc_writer LOGIN; CREATE ROLE hc_nobody LOGIN"))
    bare_database.execute(
        with_own_roles(f"GRANT CREATE ON DATABASE {BARE} TO hc_writer; GRANT ALL ON SCHEMA public TO hc_writer")
    )
    bare_database.execute(ADMIN)
    with role("hc_writer"):
        HerokuConnect().create_tables()
    bare_database.execute(with_own_roles("REVOKE CREATE ON SCHEMA public FROM hc_writer, PUBLIC"))
    with role("hc_writer"):
        run(OWNER)
    with role("hc_installer"):
        call_command("migrate", "hc_signals", verbosity=0)
        run(INSTALLER)
        call_command("hc_triggers", "install", stdout=StringIO())
    yield
    for name in map(own, ROLES):
        bare_database.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.mark.fault(
    "writer, installer and worker are three roles with the grants of `docs/security.md`", outcome="delivered"
)
def test_three_roles(
    roles: None, connect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[str] = []
    monkeypatch.setattr(signals.record_changed, "receivers", [])  # the example's has a table of its own
    connect(signals.record_changed, lambda event, **kwargs: got.append(event.change_type), Account)
    connect(signals.gap_detected, lambda event, **kwargs: got.append(event.cause), Account)
    connect(signals.record_created, raises, Account)
    with role("hc_writer"):
        heroku = HerokuConnect()
        sfids = heroku.create(Account, 3)
        heroku.update(Account, sfids[0], name="other")
        heroku.delete(Account, sfids[1])
    repairs = Repairs("default", Conf(), connected_models())
    with role("hc_worker"):
        repairs.look()
        assert deliver(MAX_ATTEMPTS=1) == 5
        assert Delivery.objects.count() == 3
        rotate("default", 0)
        pausing.pause("default")
    with role("hc_writer"):
        heroku.create(Account, 1)
    with role("hc_worker"):
        pausing.resume("default", [Account])
        deliver()
    assert got == ["CREATE", "CREATE", "CREATE", "UPDATE", "DELETE", "paused"]
    with role("hc_writer"):
        heroku.recreate_table(Account)
    with role("hc_worker"):
        repairs.look()
        repairs.look()
    assert caplog.text.count("as the role that owns the capture functions") == 1
    with role("hc_installer"):
        call_command("hc_triggers", "install", stdout=StringIO())
    with role("hc_writer"):
        heroku.create(Account, 2)
    with role("hc_worker"):
        repairs.look()
        Rereading("default", connected_models()).read_for(5)
        assert deliver() == 3
    assert got[-3:] == ["table_recreated", "CREATE", "CREATE"]
    assert "It needs SELECT and UPDATE on the table" in caplog.text
    with role("hc_installer"):
        call_command("hc_triggers", "uninstall", "--all", stdout=StringIO())
        call_command("migrate", "hc_signals", "zero", verbosity=0)
    with role("hc_writer"):
        heroku.create(Account, 1)


def raises(**kwargs: Any) -> None:
    raise ValueError


def test_who_has_no_rights_sees_the_status_and_nothing_else(roles: None) -> None:
    out = StringIO()
    with role("hc_nobody"):
        call_command("hc_triggers", "status", "--check", stdout=out)
    assert "salesforce.account: installed" in out.getvalue()
    for name, refused in (
        ("hc_nobody", "SELECT 1 FROM public.hc_signals_change"),
        ("hc_nobody", "SELECT public.hc_signals_ring()"),
        ("hc_writer", "SELECT 1 FROM public.hc_signals_change"),
        ("hc_writer", "UPDATE public.hc_signals_control SET paused_at = now()"),
        ("hc_worker", "DELETE FROM public.hc_signals_change"),
        ("hc_worker", "UPDATE salesforce.account SET name = ''"),
        ("hc_installer", "UPDATE salesforce.account SET name = ''"),
    ):
        with role(name), pytest.raises(ProgrammingError, match="permission denied"):
            run(refused)
