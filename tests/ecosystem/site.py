"""The example project in the process of a check: what each package must leave working."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).parent.parent.parent
PORT = int(os.environ.get("ECOSYSTEM_PORT", "0"))
"""A free port for the check's server: Redis, or a web server."""
SECONDS = 20
"""How long a condition is waited for."""


def wait_until(condition: Callable[[], Any], what: str = "") -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {SECONDS} s: {what or condition}")
        time.sleep(0.05)
    return value


def is_open(port: int) -> bool:
    """Return whether a port of this machine takes connections."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def equal(found: Any, expected: Any) -> None:
    """Raise if two values differ, and show both."""
    if found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


class Site:
    """The migrated project, with Heroku Connect's tables and our triggers."""

    def __init__(self, *, migrate: bool = True) -> None:
        from django.core.management import call_command

        from hc_signals.testing import HerokuConnect

        if migrate:
            call_command("migrate", verbosity=0)
            call_command("migrate", verbosity=0, run_syncdb=True)  # the tables of the app `shop`
        self.heroku = HerokuConnect()
        self.heroku.create_tables()
        call_command("hc_triggers", "install", stdout=StringIO())

    def deliver(self) -> None:
        """Deliver what is committed, in this process; no delivery may have failed."""
        self.deliver_all()
        self.check_deliveries()

    def deliver_all(self) -> None:
        """Deliver what is committed, in this process."""
        from hc_signals.conf import get_conf
        from hc_signals.worker.loop import Worker

        Worker("default", get_conf()).deliver_once()

    def check_deliveries(self) -> None:
        """Raise if a delivery was stored."""
        from hc_signals.models import Delivery

        equal([f"{each.receiver}: {each.error}" for each in Delivery.objects.all()], [])

    @contextmanager
    def process(self, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program of the project until the block ends, and then stop it by SIGTERM."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield process
                process.terminate()
                process.wait(SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # also what it has started and left behind
                process.wait()
                output.seek(0)
                print(f"{' '.join(command)} printed:\n{output.read()}")

    @contextmanager
    def manage(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command of manage.py until the block ends."""
        with self.process(sys.executable, "-m", "tests.ecosystem.manage", *arguments, **environment) as process:
            yield process

    @contextmanager
    def redis(self) -> Iterator[None]:
        """Run a Redis server on PORT until the block ends."""
        command = ("redis-server", "--port", str(PORT), "--save", "", "--bind", "127.0.0.1", "--dir", "/tmp")
        with self.process(*command):
            wait_until(lambda: is_open(PORT), "Redis")
            yield

    @contextmanager
    def listening(self, *arguments: str) -> Iterator[None]:
        """Run hc_listen until the block ends; it must then exit with 0."""
        with self.manage("hc_listen", *arguments) as process:
            yield
        equal(process.returncode, 0)

    def client(self) -> Any:
        """Return a client of the admin, as superuser."""
        from django.contrib.auth.models import User
        from django.test import Client

        user = User.objects.filter(username="root").first() or User.objects.create_superuser("root", password="root")
        client = Client()
        client.force_login(user)
        return client

    def common(self) -> None:
        """Check what must work with each package: checks, a real worker, the status and the pages of the admin."""
        self.check_settings()
        self.check_worker()
        self.check_pages()

    def check_settings(self) -> None:
        """Raise if a system check of ours, or an error, is there that the example alone has not."""
        from django.core import checks

        found = checks.run_checks(databases=["default"])
        allowed = {"hc_signals.W002"}
        bad = [each for each in found if each.level >= checks.ERROR or (each.id or "").startswith("hc_signals.")]
        equal([str(each) for each in bad if each.id not in allowed], [])

    def check_worker(self) -> None:
        """A real hc_listen, woken by a change, calls the receiver; hc_status finds no fault."""
        from django.core.management import call_command
        from example.crm.models import Account, Contact, Seen

        with self.listening():
            (sfid,) = self.heroku.insert(Account, name="Acme")
            wait_until(lambda: Seen.objects.count() == 1, "the first change")
            self.heroku.update(Account, sfid, name="Acme Ltd")
            self.heroku.insert(Contact, {"last_name": "Ada"}, {"last_name": "Grace"})
            wait_until(lambda: Seen.objects.count() == 4, "all changes")
            contact = Contact.objects.latest("id")
            contact.last_name = "of the app"
            contact.save()
            self.heroku.delete(Account, sfid)
            wait_until(lambda: Seen.objects.filter(change_type="DELETE").count() == 1, "the deletion")
            call_command("hc_status", stdout=StringIO())
        equal(Seen.objects.count(), 5)
        self.check_deliveries()

    def check_pages(self) -> None:
        """Each page of ours in the admin answers 200, and a record is saved."""
        from django.contrib import admin
        from django.urls import reverse
        from example.crm.models import Contact

        from hc_signals.models import Change

        client = self.client()
        addresses = [
            reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
            for model in admin.site._registry
            if model._meta.app_label in ("hc_signals", "crm", "shop")
        ]
        change, contact = Change.objects.latest("id"), Contact.objects.latest("id")
        addresses += [
            reverse("admin:index"),
            reverse("admin:hc_signals_change_change", args=[change.pk]),
            reverse("admin:hc_signals_change_timeline", args=["crm.Contact", contact.sf_id]),
            reverse("admin:hc_signals_change_timelines"),
            reverse("admin:hc_signals_delivery_errors"),
            reverse("admin:crm_contact_change", args=[contact.pk]),
        ]
        for address in addresses:
            answer = client.get(address)
            assert answer.status_code == 200, f"{address}: {answer.status_code} {answer.headers.get('Location', '')}"
        address = reverse("admin:crm_contact_change", args=[contact.pk])
        answer = client.post(address, {"last_name": "in the admin", "external_id": contact.external_id or str(uuid4())})
        assert answer.status_code == 302, re.findall(r"errorlist.*?</ul>", answer.content.decode(), re.S)
        contact.refresh_from_db()
        equal(contact.last_name, "in the admin")
