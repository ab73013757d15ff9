"""A check for django-health-check 4 (extra ``health``): the connections of the app and their mappings."""

import dataclasses
import datetime

from health_check.base import HealthCheck
from health_check.exceptions import ServiceReturnedUnexpectedResult, ServiceUnavailable

from hc_signals.conf import heroku_app_name
from hc_signals.exceptions import APIError, ConfigurationError
from hc_signals.heroku.api import HerokuConnectAPI, check_health


@dataclasses.dataclass
class HerokuConnectHealthCheck(HealthCheck):  # type: ignore[misc]  # the package has no types
    """Reads the states of Heroku Connect's connections and mappings from its API.

    Args:
        app_name: name of the Heroku app; HEROKU_CONNECT_APP_NAME by default.
    """

    app_name: str = ""
    timeout: datetime.timedelta = dataclasses.field(default=datetime.timedelta(seconds=40), repr=False)
    """Time for the check; longer than the 30 seconds of the API's client."""

    def run(self) -> None:  # not async: the package runs it in a thread
        """Query the API.

        Raises:
            ServiceUnavailable: no app or token is configured, or a connection or mapping is in a bad state.
            ServiceReturnedUnexpectedResult: the API gave no answer, or an unexpected one.
        """
        try:
            problems = check_health(HerokuConnectAPI(self.app_name or heroku_app_name()))
        except ConfigurationError as error:
            raise ServiceUnavailable(str(error)) from error
        except APIError as error:
            raise ServiceReturnedUnexpectedResult(str(error)) from error
        if problems:
            raise ServiceUnavailable("; ".join(map(str, problems)))
