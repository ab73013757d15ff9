"""Connected models and their fields: ``from hc_signals.db import models as hc_models``."""

from hc_signals.db.models.base import *
from hc_signals.db.models.fields import *
from hc_signals.db.models.multi_picklist import *
from hc_signals.db.models.related import *
