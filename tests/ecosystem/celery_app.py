"""What `celery -A` imports."""

from tests.ecosystem.manage import set_up

set_up()

from tests.ecosystem.chosen import CHECK  # noqa: E402

app = CHECK.app()
