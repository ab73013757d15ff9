"""Settings of a worker process under test: the suite's, on the test database."""

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE"]
if "WRONG_SETTING" in os.environ:
    HC_SIGNALS = {os.environ["WRONG_SETTING"]: 1}
if "WATCH_SECONDS" in os.environ:
    HC_SIGNALS = {"WATCH_SECONDS": float(os.environ["WATCH_SECONDS"])}
if "ENGINE" in os.environ:
    DATABASES["default"]["ENGINE"] = os.environ["ENGINE"]
if "HC_SIGNALS_JSON" in os.environ:
    HC_SIGNALS = json.loads(os.environ["HC_SIGNALS_JSON"])
if "LOGGING_JSON" in os.environ:
    LOGGING = json.loads(os.environ["LOGGING_JSON"])
if "DATABASE_JSON" in os.environ:
    DATABASES["default"] |= json.loads(os.environ["DATABASE_JSON"])
