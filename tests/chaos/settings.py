"""Settings of the workers in the chaos run."""

import os

from example.settings import *  # noqa: F403
from example.settings import INSTALLED_APPS

INSTALLED_APPS += ["tests.chaos"]
HC_SIGNALS = {
    "SHARDS": int(os.environ.get("CHAOS_SHARDS", "2")),
    "BATCH_SIZE": 50,
    "RETRY_SECONDS": 0.02,
    "RETRY_MAX_SECONDS": 0.1,
    "POLL_INTERVAL": 600.0,  # no fallback poll: the doorbell alone must do
}
