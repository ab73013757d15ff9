"""System check: a rule of ORIGINS fits the project itself, so its own writes would come back as Salesforce's."""

import os
import re
from typing import Any

from django.core.checks import CheckMessage, Warning
from django.db import connections

from hc_signals.conf import origin_rules
from hc_signals.exceptions import ConfigurationError
from hc_signals.origins import Rule, Rules
from hc_signals.tables import connected_models

# libpq's way to give settings of the session: -c name=value, or --name=value.
_OPTION = re.compile(r"(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)")


def check_own_origin(**kwargs: Any) -> list[CheckMessage]:
    """W013: a rule fits sessions of this project, by DATABASES or libpq's environment."""
    try:
        rules = origin_rules()
    except ConfigurationError:
        return []  # E001
    aliases = [alias for alias in connections if connections[alias].vendor == "postgresql"]
    if not connected_models():
        return []
    return [
        own_origin(alias, rule.label, f"its {rule.setting} is {_settings(alias)[rule.setting]!r}")
        for alias in aliases
        for rule in fitting_rules(alias, rules)
    ]


def fitting_rules(using: str, rules: Rules) -> list[Rule]:
    """Return the rules that fit the sessions of an alias, by its settings alone."""
    settings = _settings(using)
    return [rule for rule in rules if _fits(rule, settings.get(rule.setting, ""))]


def own_origin(using: str, label: str, why: str) -> CheckMessage:
    """Return the warning for one rule."""
    return Warning(
        f"The rule {label} of HC_SIGNALS['ORIGINS'] also fits this project's sessions on {using!r}, by {why}: the "
        "project's own writes to connected tables would call its receivers as Salesforce's changes.",
        hint="Choose a rule that only the mirror fits, such as an application_name of its own.",
        id="hc_signals.W013",
    )


def _fits(rule: Rule, value: str) -> bool:
    return value.startswith(rule.value) if rule.is_prefix else value == rule.value


def _settings(using: str) -> dict[str, str]:
    """Return the settings with which a session of the alias begins, as far as its configuration has them."""
    given = connections[using].settings_dict
    options = given.get("OPTIONS") or {}
    of_session = str(options.get("options") or os.environ.get("PGOPTIONS", ""))
    found = {
        name.replace("-", "_").lower(): re.sub(r"\\(.)", r"\1", value) for name, value in _OPTION.findall(of_session)
    }
    names = {
        "application_name": options.get("application_name") or os.environ.get("PGAPPNAME"),
        "session_authorization": given.get("USER") or options.get("user") or os.environ.get("PGUSER"),
    }
    return found | {name: str(value) for name, value in names.items() if value}
