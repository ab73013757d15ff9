"""django-pgpubsub works off changes stored while no listener ran, as its ``listen --recover`` does.

With LIVE=1 a listener runs while one transaction makes the changes, and works off the notifications.
"""

import importlib.machinery
import json
import os
import sys
import time
import types
from urllib.parse import parse_qs, unquote, urlsplit

import django
from django.conf import settings

parts = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parse_qs(parts.query).get("host", [parts.hostname or ""])[0],
            "PORT": str(parts.port or ""),
        }
    },
    INSTALLED_APPS=["pgtrigger", "pgpubsub", "peer"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
# The app is defined here, so that the script is one file.
for name in ("peer", "peer.models"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__file__, module.__path__ = __file__, []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
django.setup()

import pgpubsub  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models  # noqa: E402
from pgpubsub.listen import listen_to_channels, process_notifications, process_stored_notifications  # noqa: E402
from pgpubsub.models import Notification  # noqa: E402

COLUMNS = 24
COUNT = int(os.environ["COUNT"])
delivered, last = 0, 0.0

fields = {f"column_{number}": models.TextField(null=True) for number in range(COLUMNS)}
Record = type("Record", (models.Model,), {"__module__": "peer.models", **fields})


class RecordChannel(pgpubsub.TriggerChannel):
    model = Record
    lock_notifications = True


@pgpubsub.post_insert_listener(RecordChannel)
def receive(old, new):  # type: ignore[no-untyped-def]
    """Count the calls and note the time of the last one."""
    global delivered, last
    delivered, last = delivered + 1, time.perf_counter()


call_command("migrate", run_syncdb=True, verbosity=0)
with connection.schema_editor() as editor:
    if Record._meta.db_table not in connection.introspection.table_names():
        editor.create_model(Record)
import pgtrigger  # noqa: E402

for model, trigger in pgtrigger.registered():
    trigger.install(model)


def write() -> None:
    """Insert the rows; the trigger stores and notifies."""
    names = ", ".join(fields)
    values = ", ".join("'value ' || n" for _ in fields)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO peer_record ({names}) SELECT {values} FROM generate_series(1, {COUNT}) n")
        cursor.execute("VACUUM ANALYZE pgpubsub_notification")


if os.environ.get("LIVE"):
    wrapper = listen_to_channels()
    write()
else:
    write()
    wrapper = listen_to_channels()
    process_stored_notifications()
began = time.perf_counter()
while Notification.objects.exists():
    process_notifications(wrapper)
seconds = last - began
if delivered != COUNT:
    sys.exit(f"{delivered} of {COUNT} were delivered")
print(json.dumps({"seconds": seconds}))
