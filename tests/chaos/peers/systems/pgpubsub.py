"""django-pgpubsub: stored notifications (``lock_notifications``), and ``listen --recover`` under a supervisor."""

from tests.chaos.peers.system import System

SYSTEM = System(
    name="pgpubsub",
    label="django-pgpubsub",
    install=(("-m", "django", "migrate", "--run-syncdb", "-v", "0"), ("-m", "django", "pgtrigger", "install")),
    work=("-m", "django", "listen", "--worker", "--recover", "--no-restart-on-failure", "--loglevel", "warning"),
    promises=frozenset({"once"}),
    environment={
        "DJANGO_SETTINGS_MODULE": "tests.chaos.peers.pubsub.settings",
        "PGPUBSUB_USE_PSYCOPG_V3": "True",
    },
)
