"""Settings of the workers in the chaos run."""

import os

from example.settings import *  # noqa: F403
from example.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS += ["tests.chaos"]
# The run finds a worker's connections by this name.
DATABASES["default"].setdefault("OPTIONS", {})["application_name"] = os.environ["CHAOS_WORKER"]
if "CHAOS_MISBEHAVIOURS" in os.environ:
    DATABASES["other"] = DATABASES["default"]
HC_SIGNALS = {
    "CONSUMER": os.environ["CHAOS_CONSUMER"],
    "SHARDS": int(os.environ["CHAOS_SHARDS"]),
    "BATCH_SIZE": int(os.environ["CHAOS_BATCH"]),
    "ATOMIC": os.environ["CHAOS_ATOMIC"] == "True",
    "RETRY_SECONDS": 0.02,
    "RETRY_MAX_SECONDS": 0.1,
    "POLL_INTERVAL": 600.0,  # no poll helps: the doorbell must wake the worker
}
