"""django-extensions: shell_plus, runserver_plus, validate_templates, show_urls."""

import urllib.request
from io import StringIO
from typing import Any

from tests.ecosystem.site import PORT, equal, is_open, wait_until

PACKAGES = ("django-extensions", "Werkzeug")
APPS = ["django_extensions"]


def check(site: Any) -> None:
    from django.core.management import call_command

    call_command("validate_templates", verbosity=1)
    listed = StringIO()
    call_command("show_urls", stdout=listed)
    assert "hc_signals_change_timeline" in listed.getvalue()
    code = "print('accounts:', Account.objects.count(), Change.objects.exists())"
    with site.manage("shell_plus", "--print-sql", "-c", code) as shell:
        shell.wait(20)
        equal(shell.returncode, 0)
    call_command("list_model_info", stdout=StringIO())
    port = PORT
    with site.manage("runserver_plus", str(port)):
        wait_until(lambda: is_open(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/login/", timeout=20) as answer:
            equal(answer.status, 200)
