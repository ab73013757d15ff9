"""The check that this process runs: the one that ECOSYSTEM_CHECK names."""

import importlib
import os

CHECK = importlib.import_module(f"tests.ecosystem.checks.{os.environ['ECOSYSTEM_CHECK']}")
