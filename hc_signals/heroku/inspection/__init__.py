"""Writes models from the objects that Heroku Connect has mapped, and compares models with their tables."""

from hc_signals.heroku.inspection.code import models_code
from hc_signals.heroku.inspection.differences import Difference, differences
from hc_signals.heroku.inspection.names import class_name, class_names
from hc_signals.heroku.inspection.read import Column, Source, Table, live_source, mapped_source

__all__ = (
    "Column",
    "Difference",
    "Source",
    "Table",
    "class_name",
    "class_names",
    "differences",
    "live_source",
    "mapped_source",
    "models_code",
)
