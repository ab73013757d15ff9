"""Makes docs/images/*.png: the admin's pages in a real browser, with failing deliveries and drifted triggers.

Needs the extra ``screenshots`` and a Chromium: ``playwright install chromium``, or one that is installed already,
named by CHROMIUM. Run it as ``python docs/screenshots.py``, with names of pictures to take these alone, such as
``overview-dark``. Not part of the tests. The figures of the overview's charts are invented.
"""

import math
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "example")]

from hc_signals.testing import HerokuConnect, embedded  # noqa: E402

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1280, 740
WAYS = {"": {}, "-dark": {"color_scheme": "dark"}, "-narrow": {"viewport": {"width": 400, "height": HEIGHT}}}
"""The pages of THREE_WAYS are taken in each of these, by the end of the picture's name."""
THREE_WAYS = ("overview", "timeline", "deliveries")
WHOLE = ("change", "delivery", "overview", "timeline")
"""Pages that are taken in their whole length."""
NOTES = "Our largest customer. Renewal talks start in March; the contract ends in June. "


class QuietHandler(WSGIRequestHandler):
    """Does not print every request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def main() -> None:
    """Start server, site and browser; take the pictures."""
    with tempfile.TemporaryDirectory(prefix="hc_signals_screenshots_") as directory:
        server = embedded.start(directory)
        os.environ |= {"DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "example.settings", "DEBUG": "1"}
        import django

        django.setup()
        from django.db import connections

        try:
            play()
            connections.close_all()  # the worker's
            with_site(take_pictures)
        finally:
            connections.close_all()
            server.stop()


def play() -> None:
    """Let Salesforce change things, one receiver fail, and two tables lose their triggers."""
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from example.crm.models import Account, Contact, Project

    from hc_signals.capture.install import uninstall_capture
    from hc_signals.conf import Conf
    from hc_signals.signals import record_updated
    from hc_signals.worker.loop import Worker

    call_command("migrate", verbosity=0)
    call_command("hc_simulate", "--create-only")
    call_command("hc_triggers", "install")
    User.objects.create_superuser("admin", password="admin")  # noqa: S106  (of a server that lives for a minute)
    record_updated.connect(mail_the_owner, sender=Contact)
    heroku = HerokuConnect(seed=1)
    accounts = heroku.insert(
        Account, *({"name": name, "industry": "Energy"} for name in ("Edge", "Burlington", "GenePoint"))
    )
    heroku.create(Contact, 6)
    (project,) = heroku.insert(Project, name="Renewal", description=NOTES * 3, active=True, progress=25)
    for number, sfid in enumerate(heroku.sfids(Contact)[:3]):
        heroku.update(Contact, sfid, email=f"ada{number}@example.com")
    heroku.update(Contact, heroku.sfids(Contact)[0], last_name="Lovelace")
    worker = Worker("default", Conf(SHARDS=2))
    worker.deliver_once()
    adapt_deliveries()
    heroku.update(Account, accounts[0], name="Edge Communications", industry="Retail", annual_revenue=139000000)
    heroku.delete(Account, accounts[2])
    changed = (NOTES * 3).replace("March", "April", 1)
    heroku.update(Project, project, description=changed, progress=40, active=False)
    invent_figures()
    uninstall_capture(Account, "default")
    heroku.drop_table(heroku.models[-1])
    break_function_of(Contact)


def invent_figures() -> None:
    """Write an hour of minutes, as a worker would: a calm one, in which a mail server went away for a while."""
    from hc_signals.log.histogram import Histogram
    from hc_signals.log.minutes import Minute, ReceiverMinute, append
    from hc_signals.postgres.moments import now

    chance = random.Random(4)  # noqa: S311  (pictures)
    newest = now().replace(second=0, microsecond=0)
    for age in range(70, 0, -1):
        wave = 1 + 0.6 * math.sin(age / 9)
        is_load, is_away = 38 <= age <= 42, 12 <= age <= 24
        counts = {"account": 40, "contact": 25, "project__c": 6}
        changes = {
            f"salesforce.{name}": {
                "UPDATE": int(count * wave * chance.uniform(0.7, 1.3)) * (5 if is_load else 1),
                "INSERT": chance.randrange(1 + count // 4),
                **({"DELETE": 1} if chance.random() < 0.1 else {}),
            }
            for name, count in counts.items()
        }
        slow = 6 if is_load else 1
        minute = Minute(
            newest - timedelta(minutes=age),
            "default",
            changes=changes,
            latency=Histogram(slow * chance.lognormvariate(-3, 0.6) for _ in range(200)),
            receivers={
                "crm.receivers.mail_the_owner": ReceiverMinute(25, chance.randrange(4, 9) if is_away else 0, 2.0)
            },
            lag=chance.uniform(20, 50) if is_load else 0.0,
            log_bytes=int((0.9 - age * 0.003) * 2**20),
            freshness={
                f"salesforce.{name}": Histogram(chance.uniform(5, 400 if is_load else 160) for _ in range(20))
                for name in counts
            },
        )
        append("default", minute)


def mail_the_owner(instance: Any, **kwargs: Any) -> None:
    """Fail, as a receiver that calls a service does when the service is down."""
    raise ConnectionError("mail.example.com answered 503: try again later")


mail_the_owner.__module__ = "crm.receivers"


def adapt_deliveries() -> None:
    """Make one of the failed deliveries a dead one; show no path of the machine that takes the pictures."""
    from hc_signals.models import Delivery

    for delivery in Delivery.objects.all():
        Delivery.objects.filter(pk=delivery.pk).update(error=delivery.error.replace(str(ROOT), "/app"))
    last = Delivery.objects.filter(state="retry").latest("id")
    Delivery.objects.filter(pk=last.pk).update(state="dead", attempt=10, next_attempt_at=None)


def break_function_of(model: Any) -> None:
    """Leave an outdated capture function behind, as an older version of the model would."""
    from django.db import connection

    from hc_signals.capture.function import function_name

    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE OR REPLACE FUNCTION public.{function_name(model)}() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RETURN NULL; END $$"
        )


def with_site(act: Any) -> None:
    """Serve the example site in a thread while ``act`` runs; it gets the address."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.handlers.wsgi import WSGIHandler

    with make_server("127.0.0.1", 0, StaticFilesHandler(WSGIHandler()), handler_class=QuietHandler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        act(f"http://127.0.0.1:{httpd.server_port}/admin")
        httpd.shutdown()


def take_pictures(site: str) -> None:
    """Log in and take one picture of each page."""
    from playwright.sync_api import sync_playwright

    IMAGES.mkdir(exist_ok=True)
    addresses = pages()  # before Playwright starts its event loop, in which Django refuses to ask a database
    with sync_playwright() as playwright:
        options = {"executable_path": os.environ["CHROMIUM"]} if "CHROMIUM" in os.environ else {}
        browser = playwright.chromium.launch(args=["--no-sandbox"], **options)
        context = browser.new_context()
        log_in(context.new_page(), site)
        for name, path, way in pictures(addresses):
            page = browser.new_page(
                **{"viewport": {"width": WIDTH, "height": HEIGHT}, "color_scheme": "light", **way},
                storage_state=context.storage_state(),
            )
            page.goto(f"{site}/hc_signals/{path}")
            page.screenshot(path=IMAGES / f"admin-{name}.png", full_page=name.partition("-")[0] in WHOLE)
            page.close()
        browser.close()


def log_in(page: Any, site: str) -> None:
    """Log in; the page's context has the session then."""
    page.goto(f"{site}/login/?next=/admin/hc_signals/change/")
    page.fill("#id_username", "admin")
    page.fill("#id_password", "admin")
    page.click("input[type=submit]")


def pictures(addresses: dict[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name of each picture that the command line asks for, its address and the options of its page."""
    for name, path in addresses.items():
        for end, way in WAYS.items() if name in THREE_WAYS else [("", {})]:
            if name + end in sys.argv[1:] or not sys.argv[1:]:
                yield name + end, path, way


def pages() -> dict[str, str]:
    """Return the addresses of the pages by the names of their pictures."""
    from hc_signals.models import Change, Delivery

    change = Change.objects.filter(table_name="salesforce.project__c", operation="UPDATE").latest("id")
    failed = Delivery.objects.earliest("id")
    return {
        "overview": "minute/",
        "timeline": f"change/timeline/{failed.sender}/{failed.record_id}/",
        "changes": "change/",
        "change": f"change/{change.id}/change/",
        "deliveries": "delivery/",
        "delivery": f"delivery/{failed.id}/change/",
        "errors": "delivery/errors/",
        "consumers": "position/",
        "triggers": "connectedtable/",
    }


if __name__ == "__main__":
    main()
