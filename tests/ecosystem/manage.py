"""manage.py of the check that ECOSYSTEM_CHECK names."""

import sys

from tests.ecosystem.chosen import CHECK


def set_up() -> None:
    """Set Django up, as the check's project does."""
    import django

    if prepare := getattr(CHECK, "prepare", None):
        prepare()
    django.setup()


if __name__ == "__main__":
    set_up()
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", *sys.argv[1:]])
