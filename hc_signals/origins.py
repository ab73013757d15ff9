"""Origins: the rules by which capture knows the writes of Heroku Connect, or of another tool that fills the tables.

A rule compares one setting of the writer's session with a value. It reads nothing else, so it raises no error and costs
each statement two to four microseconds: no catalog, no cast, no column. The setting ``ORIGINS`` has a list of rules.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hc_signals.exceptions import ConfigurationError
from hc_signals.postgres.names import LONGEST_NAME, literal

APP = "app"
"""Origin of a change that no rule fits."""
BACKFILL = "backfill"
"""Origin of a row that ``hc_backfill`` has read."""
HEROKU_CONNECT = "heroku_connect"
"""The rule of Heroku Connect, and the origin of its changes."""

_SETTINGS = {
    "application_name": "application_name",
    # Not session_user: a session may outlive its role, and then session_user raises an error. And not current_user: a
    # SECURITY DEFINER function, such as a capture function, changes it.
    "role": "session_authorization",
}
"""By key of a rule, the setting of the server that it compares."""
_KEYS = (*_SETTINGS, "variable")
_VARIABLE = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+|session_replication_role", re.IGNORECASE)
# No quote, backslash, dollar, brace or percent sign: values are part of generated SQL and of trigger arguments.
_VALUE = re.compile(r"[\w .:@/+=,()\[\]#&<>|~^!?-]+\*?", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """One rule: which setting of a session has which value."""

    label: str
    """Its name: ``change_origin`` of the changes that it fits."""
    setting: str
    """Name of the setting in the server."""
    value: str
    is_prefix: bool = False
    """The setting need only begin with the value: PgBouncer with ``application_name_add_host`` appends an address."""

    @property
    def _current(self) -> str:
        # With true, an unknown setting is NULL. Every server has the others.
        return f"pg_catalog.current_setting({literal(self.setting)}{', true' if '.' in self.setting else ''})"

    @property
    def condition(self) -> str:
        """The rule as SQL; NULL, which counts as false, in a session that never had the setting."""
        if self.is_prefix:
            return f"pg_catalog.starts_with({self._current}, {literal(self.value)})"
        return f"{self._current} = {literal(self.value)}"

    def case(self, otherwise: str) -> str:
        """Return SQL with the label if the rule fits, else the SQL expression ``otherwise``."""
        label = literal(self.label)
        if self.is_prefix:
            return f"CASE WHEN {self.condition} THEN {label} ELSE {otherwise} END"
        return f"CASE {self._current} WHEN {literal(self.value)} THEN {label} ELSE {otherwise} END"


Rules = tuple[Rule, ...]


def parse_rules(given: Any) -> Rules:
    """Return the rules of the setting ``ORIGINS``.

    Raises:
        ConfigurationError: it is no list of rules, is empty, or has a rule twice.
    """
    if not isinstance(given, list | tuple) or not given:
        raise ConfigurationError(
            f"HC_SIGNALS['ORIGINS'] is {given!r}; expected a list of one rule or more, such as ['{HEROKU_CONNECT}']."
        )
    rules = tuple(map(_parse, given))
    for index, rule in enumerate(rules):
        if rule in rules[:index]:
            raise ConfigurationError(f"HC_SIGNALS['ORIGINS'] has {given[index]!r} twice; remove one of them.")
    return rules


def _parse(given: Any) -> Rule:
    if given == HEROKU_CONNECT:
        return Rule(HEROKU_CONNECT, "xmlbinary", "hex")
    if isinstance(given, str):
        near = difflib.get_close_matches(given.lower(), [HEROKU_CONNECT, *_KEYS], n=1, cutoff=0.4)
        found = near[0] if near else HEROKU_CONNECT
        raise _wrong(given, f"did you mean {_example(found)}?")
    if not isinstance(given, Mapping):
        raise _wrong(given, f"expected '{HEROKU_CONNECT}', or a dict such as {_example('application_name')}.")
    chosen = [key for key in given if key in _KEYS]
    for key in given:
        if key not in (*_KEYS, "value"):
            near = difflib.get_close_matches(str(key).lower(), [*_KEYS, "value"], n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_KEYS)}."
            raise _wrong(given, f"the key {key!r} is unknown; {hint}")
    if len(chosen) != 1:
        raise _wrong(given, f"expected one of the keys {', '.join(_KEYS)}; for two rules write two dicts.")
    if ("value" in given) != (chosen[0] == "variable"):
        raise _wrong(given, f"expected the key 'value' with the key 'variable' only, such as {_example('variable')}.")
    setting = _SETTINGS.get(chosen[0]) or _variable(given)
    text = given["value" if chosen[0] == "variable" else chosen[0]]
    value = _value(given, text)
    name = setting if chosen[0] == "variable" else chosen[0]
    return Rule(f"{name}={text}", setting, value, is_prefix=text.endswith("*"))


def is_variable(name: str) -> bool:
    """Return True if a rule may compare the setting of this name: every session may read and set it."""
    return bool(_VARIABLE.fullmatch(name)) and len(name) <= LONGEST_NAME


def _variable(given: Mapping[str, Any]) -> str:
    name = given["variable"]
    if not (isinstance(name, str) and is_variable(name)):
        raise _wrong(
            given,
            f"the variable is {name!r}; expected a name with a dot, such as 'mirror.origin', that the tool sets by "
            "SET or set_config(), or 'session_replication_role'.",
        )
    return name.lower()


def _value(given: Mapping[str, Any], text: Any) -> str:
    if not (isinstance(text, str) and _VALUE.fullmatch(text) and text.strip(" *") and len(text) <= LONGEST_NAME):
        raise _wrong(
            given,
            f"the value is {text!r}; expected 1 to {LONGEST_NAME} characters: ASCII letters, digits, spaces and "
            "punctuation without quotes, backslash, $, %, ; and braces. A * at the end matches any further characters.",
        )
    return text.removesuffix("*")


def _example(key: str) -> str:
    examples: dict[str, Any] = {
        "application_name": {"application_name": "airbyte"},
        "role": {"role": "sync"},
        "variable": {"variable": "mirror.origin", "value": "salesforce"},
    }
    return repr(examples.get(key, key))


def _wrong(given: Any, text: str) -> ConfigurationError:
    return ConfigurationError(f"HC_SIGNALS['ORIGINS'] has the rule {given!r}; {text}")


def when_sql(rules: Rules) -> str:
    """Return the condition of a trigger: true if any rule fits the writer's session."""
    return " OR ".join(rule.condition for rule in rules)


def origin_sql(rules: Rules) -> str:
    """Return SQL with the label of the first rule that fits the session, else APP."""
    found = literal(APP)
    for rule in reversed(rules):
        found = rule.case(found)
    return found


_DEFAULT = parse_rules([HEROKU_CONNECT])


def trigger_arguments(rules: Rules) -> tuple[str, ...]:
    """Return the arguments of a capture trigger. They name its rules for the catalog; the function ignores them.

    None for Heroku Connect alone, as in the triggers of releases without ``ORIGINS``.
    """
    return () if rules == _DEFAULT else labels(rules)


def labels_of_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of the rules of a trigger with these arguments."""
    return tuple(arguments) or labels(_DEFAULT)


def labels(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return the labels of the rules."""
    return tuple(rule.label for rule in rules)


def is_mirrored(origin: str) -> bool:
    """Return True if an origin in the log is that of Heroku Connect or another mirror, by a rule of today or before."""
    return origin not in (APP, BACKFILL)
