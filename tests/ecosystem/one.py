"""Runs the check that ECOSYSTEM_CHECK names, on the database of DATABASE_URL."""

import signal

from tests.ecosystem.manage import set_up


def main() -> None:
    """Check what must work with each package, then what is particular to this one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    set_up()
    from django.db import connections

    from tests.ecosystem.chosen import CHECK
    from tests.ecosystem.site import Site

    site = CHECK.make_site() if hasattr(CHECK, "make_site") else Site()
    if getattr(CHECK, "COMMON", True):
        site.common()
    if hasattr(CHECK, "check"):
        CHECK.check(site)
    connections.close_all()


if __name__ == "__main__":
    main()
