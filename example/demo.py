"""`make demo`: Salesforce changes reach Django receivers, live, on an embedded PostgreSQL.

Starts the server, migrates the example, installs capture, runs the real `manage.py hc_listen` as its own process, plays
Heroku Connect for a few seconds, and counts. Exit code 1 if anything was lost or delivered twice.

`make demo-site` plays on until Ctrl-C, and serves the example's admin on this machine.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from hc_signals.testing import HerokuConnect, embedded  # noqa: E402
from hc_signals.testing.traffic import Step  # noqa: E402

SEED = 1
SECONDS = 8
SITE_STEPS_PER_SECOND = 1
PORT = os.environ.get("PORT", "8000")
STEPS = {"poll": "sends", "edit": "edits", "create": "creates", "delete": "deletes", "bulk": "loads", "app": "accepts"}
BATCH = 40
STEPS_PER_SECOND = 8
DRAIN_TIMEOUT = 30
ADMIN = "demo"
PAGES = {
    "Overview": "hc_signals/minute/",
    "Changes": "hc_signals/change/",
    "Accounts": "crm/account/",
}
NEXT = """
Next:
  make demo-site   the same, with the admin: overview, changes, the timeline of a record
  docs/start.md    your own receiver, from an empty folder, in ten minutes
"""


def manage(*arguments: str) -> None:
    """Run one management command and stop the demo if it fails."""
    print(f"$ manage.py {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, str(HERE / "manage.py"), *arguments], check=True)


def play(heroku: HerokuConnect) -> None:
    """Play Heroku Connect for SECONDS, and print each step."""
    print(
        f"\nSalesforce changes records for {SECONDS} s. hc_listen calls the receivers; what they print is indented.\n"
    )
    end = time.monotonic() + SECONDS
    for step in steps(heroku, STEPS_PER_SECOND):
        left = max(0.0, end - time.monotonic())
        done = f"Salesforce {STEPS[step.action]} {step.records} {step.model.__name__}"
        print(f"{done}  [{heroku.changes} changes so far, {left:.0f} s left]", flush=True)
        if not left:
            return


def steps(heroku: HerokuConnect, per_second: float) -> Iterator[Step]:
    """Do steps without end; the app adds its own half to compound records."""
    for step in heroku.play(poll_size=BATCH):
        extend_compound_records()
        yield step
        time.sleep(1 / per_second)


def extend_compound_records() -> None:
    """Create the Django half of one record of My_Object__c, as the app of the documentation does."""
    from example.crm.models import CompoundModel, SFObjectModel

    bare = SFObjectModel.objects.filter(compoundmodel=None, external_id__isnull=False).first()
    if bare is not None:
        CompoundModel(hc_model=bare, more_data="Django's own half").save_base(raw=True)


def delivered() -> int:
    """Return the number of changes in the receivers' ledger, which refuses the same change twice."""
    from example.crm.models import Seen

    return Seen.objects.count()


def wait_for(count: int) -> int:
    """Wait until the receivers have got ``count`` changes; return how many they got."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while (seen := delivered()) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def serve(heroku: HerokuConnect) -> None:
    """Serve the admin of the example on this machine, and play on, until Ctrl-C."""
    from django.contrib.auth.models import User

    User.objects.create_superuser(ADMIN, password=ADMIN)
    command = [sys.executable, str(HERE / "manage.py"), "runserver", "--noreload", f"127.0.0.1:{PORT}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    site = subprocess.Popen(command, env={**os.environ, "DEBUG": "1"}, **quiet)
    while site.poll() is None and not answers():
        time.sleep(0.1)
    print(f"\nThe site: http://127.0.0.1:{PORT}/admin/  (user {ADMIN}, password {ADMIN}; Ctrl-C ends it)", flush=True)
    for title, page in PAGES.items():
        print(f"  {title:<32} http://127.0.0.1:{PORT}/admin/{page}", flush=True)
    try:
        for _ in steps(heroku, SITE_STEPS_PER_SECOND):
            if site.poll() is not None:
                print(
                    f"demo: the site has ended; is port {PORT} in use? Set another: PORT=8001 make demo-site",
                    flush=True,
                )
                return
    except KeyboardInterrupt:
        print()
    finally:
        site.terminate()
        site.wait(timeout=10)


def answers() -> bool:
    """Return whether the site accepts a connection."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(PORT))) == 0


def main() -> int:
    """Run the demo; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="hc_signals_demo_") as directory:
        print("Starting an embedded PostgreSQL …", flush=True)
        server = embedded.start(directory)
        os.environ |= {"DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "example.settings"}
        import django

        django.setup()
        try:
            return run(has_site="--site" in sys.argv[1:])
        finally:
            from django.db import connections

            connections.close_all()
            server.stop()


def run(has_site: bool) -> int:
    """Migrate, install, listen, play, count."""
    manage("migrate", "--verbosity", "0")
    manage("hc_simulate", "--create-only")
    manage("hc_triggers", "install")
    # A session of its own: Ctrl-C ends the demo, which then ends hc_listen.
    listen = [sys.executable, str(HERE / "manage.py"), "hc_listen"]
    listener = subprocess.Popen(listen, env={**os.environ, "CRM_PRINT": "1"}, start_new_session=True)
    heroku = HerokuConnect(seed=SEED)
    try:
        play(heroku)
        if has_site:
            serve(heroku)
        wait_for(heroku.changes)
    finally:
        listener.send_signal(signal.SIGTERM)
        listener.wait(timeout=10)
    seen = delivered()
    lost = heroku.changes - seen
    print(f"\ndemo: {heroku.changes} changes, {seen} delivered, {lost} lost{linked()}", flush=True)
    if not has_site:
        print(NEXT, flush=True)
    return 1 if lost or listener.returncode else 0


def linked() -> str:
    """Say how many more changes gave a record of the app its sfid: no receiver of the example hears of these."""
    from hc_signals.models import Change

    count = Change.objects.filter(changed=["sfid"]).count()
    return f"; {count} more gave records of the app their sfid" if count else ""


if __name__ == "__main__":
    sys.exit(main())
