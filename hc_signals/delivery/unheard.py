"""Connected models without a receiver."""

import logging

from hc_signals.conf import Conf
from hc_signals.delivery.listeners import Extras, Listeners, Model
from hc_signals.tables import connected_models

logger = logging.getLogger("hc_signals")

HOW_TO_CONNECT = "import the module with the receivers in ready() of its AppConfig"


def unheard_models(conf: Conf) -> list[Model]:
    """Return the connected models whose changes have no receiver in this project.

    Args:
        conf: the checked setting.
    """
    models = connected_models()
    listeners = Listeners(Extras.of(conf, models))
    return [model for model in models if not listeners.wanted(model)]


def warn_of_unheard(conf: Conf) -> None:
    """Log which models have no receiver; nothing if each has one."""
    if unheard := unheard_models(conf):
        logger.warning(
            "No receiver is connected for %s: their changes reach no receiver. To connect receivers, %s.",
            ", ".join(model._meta.label for model in unheard),
            HOW_TO_CONNECT,
        )
