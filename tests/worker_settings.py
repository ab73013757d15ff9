"""Settings of a worker process under test: the example's, on the test database."""

import os

from example.settings import *  # noqa: F403
from example.settings import DATABASES

DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE"]
