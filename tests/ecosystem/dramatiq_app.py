"""What the program `dramatiq` imports."""

from django.apps import apps

from tests.ecosystem import queues
from tests.ecosystem.manage import set_up

if not apps.ready:
    set_up()

import dramatiq

ran = dramatiq.actor(queues.ran)
