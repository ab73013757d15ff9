"""Settings of the project: those of the example, and a receiver; all of hc_signals' settings have their defaults."""

from example.settings import *  # noqa: F403
from example.settings import INSTALLED_APPS

INSTALLED_APPS += ["tests.chaos.peers.ours.apps.OursConfig"]
