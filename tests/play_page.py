"""Runs a page's Python in a project, then writes changes. It is one process, because each start takes a second."""

import io
import json
import logging
import os
import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import django
from django.core.management import call_command
from django.test import override_settings


def main(modules: list[str], code: list[str], play: bool, after: str) -> None:
    """Run start.md's commands, then the code, then write changes.

    Args:
        modules: modules of the project to import.
        code: blocks to run in one namespace.
        play: create, update, reload and delete records, and lose a change.
        after: code to run at the end, in the same namespace.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    django.setup()
    call_command("makemigrations", verbosity=0)
    call_command("migrate", verbosity=0)
    with redirect_stdout(io.StringIO()):
        call_command("hc_simulate", "--create-only")
        call_command("hc_triggers", "install")
        # Both URLs, direct and pooled, lead to the server of the tests.
        with override_settings(SILENCED_SYSTEM_CHECKS=["hc_signals.W003"]):
            call_command("check", databases=["default"], fail_level="WARNING")
    logging.getLogger("crm").addHandler(logging.StreamHandler(sys.stdout))
    logging.getLogger("crm").setLevel("INFO")
    names: dict[str, Any] = {"__name__": "__main__"}
    for module in modules:
        import_module(module)
    for each in code:
        exec(compile(each, "page", "exec"), names)
    if play:
        play_salesforce()
    exec(compile(after, "after", "exec"), names)


def play_salesforce() -> None:
    """Write as Heroku Connect does, and deliver; exit with an error if a receiver fails."""
    from crm.models import Account
    from django.db import connection

    from hc_signals.capture.reloads import finish_reloads
    from hc_signals.conf import get_conf
    from hc_signals.models import Delivery
    from hc_signals.tables import connected_models
    from hc_signals.testing import HerokuConnect
    from hc_signals.worker.loop import Worker

    heroku = HerokuConnect()
    fields = {field.name for field in Account._meta.fields}
    first = {"name": "Acme", "industry": "Energy", "annual_revenue": 2_000_000}
    (sfid,) = heroku.insert(Account, **{name: value for name, value in first.items() if name in fields})
    if "industry" in fields:
        heroku.update(Account, sfid, industry="Retail")
    heroku.update(Account, sfid, name="Acme Ltd")
    for model in connected_models():
        heroku.create(model, 2)
    worker = Worker("default", get_conf())
    worker.deliver_once()
    heroku.reload(Account)
    with connection.cursor() as cursor:  # more than RELOAD_QUIET_SECONDS
        cursor.execute("UPDATE public.hc_signals_reload SET cleared_at = cleared_at - interval '12 minutes'")
        cursor.execute("UPDATE public.hc_signals_refill SET at = at - interval '12 minutes'")
    finish_reloads("default", get_conf())
    heroku.delete(Account, sfid)
    with connection.cursor() as cursor:
        cursor.execute("SELECT public.hc_signals_lose()")
    worker.deliver_once()
    for delivery in Delivery.objects.all():
        sys.exit(f"{delivery.receiver} failed: {delivery.error}")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
