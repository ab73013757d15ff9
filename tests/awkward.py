"""Rows with awkward values, which Salesforce may have and Django would not make."""

from typing import Any

from django.db import connection

from hc_signals.testing import HerokuConnect
from tests.sfdc.models import User

COLUMNS: dict[str, list[Any]] = {
    "any_type__c": ["  blanks ", "two\nlines", "\nfirst", "", None],
    "external_id__c": ["00000000000000000000000000000007", "by hand", "0" * 31 + "A", "0" * 30 + "1b", None],
    "checkbox__c": [True, False, None, True, False],
    "number__c": [7.0, 1e16, 0.1 + 0.2, 1e300, None],
    "currency__c": [12.5, -1e-7, float("nan"), 123456789012345680.0, None],
    "percent__c": [33.333333333333336, 1000.0, 0.0, float("inf"), None],
    "whole__c": [7.0, 1e16, 0.5, 1e8, None],
    "date__c": ["2024-02-29", "0001-01-01", "9999-12-31", None, None],
    # In Chicago the first time occurs twice, and the second one never.
    "date_time__c": ["2024-11-03 06:30:00.123456", "2024-03-10 08:30:00", "2024-01-01 00:00:00.000001", None, None],
    "time__c": ["10:00:00.123456", "00:00:00", "23:59:59.999999", None, None],
    "email__c": ["not an address", "a@b", " x@example.com ", "", None],
    "encrypted__c": ["  x", "line\nline", "", "*", None],
    "phone__c": ["+49 30 1", " 1", "", "x", None],
    "picklist__c": ["a", "no longer", "", "b", None],
    "text__c": [" blanks ", "one\r\ntwo", "<b>&amp;\"'", "", None],
    "text_area__c": ["one\r\ntwo", "one\ntwo", "one\rtwo", "\n", None],
    "text_area_long__c": ["one\r\ntwo ", "\n\n", "  ", "", None],
    "url__c": ["www.example.com", "not an address", "ftp:x", "", None],
    "integer__c": [2147483647, -2147483648, 0, 1, None],
    "multi_picklist__c": ["b;a", "a;no longer", "no longer", "x;;y", None],
    "tags__c": ["p;q", "p; q ;", ";", "two\nlines", None],
    "location__latitude__s": [52.5, 1e-300, 0.1 + 0.2, -0.5, None],
    "location__longitude__s": [13.4, 1e300, float("inf"), 7.0, None],
    "lookup__c": ["005000000000001AAA", "005000000000009AAA", "nonsense", "", None],
    "master_detail__c": ["005000000000001AAA", "005000000000008AAA", "x", "005000000000001AAA", None],
}
"""Columns of five rows, with values that the table accepts."""


def fill(heroku: HerokuConnect) -> None:
    """Insert the rows, and the record to which some of them point; others point to a missing record."""
    heroku.insert(User, username="one")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE salesforce.user SET sfid = '005000000000001AAA'")
        for values in zip(*COLUMNS.values(), strict=True):
            places = ", ".join(["%s"] * len(COLUMNS))
            cursor.execute(f"INSERT INTO salesforce.everything__c ({', '.join(COLUMNS)}) VALUES ({places})", values)


def rows() -> dict[tuple[int, str], Any]:
    """Return every cell of the table as text, by key and column; as texts, NaN equals NaN."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT e.id, c.key, c.value FROM salesforce.everything__c e, json_each_text(row_to_json(e)) c "
            "WHERE c.key <> '_hc_lastop'"
        )
        return {(key, column): value for key, column, value in cursor.fetchall()}


def different(before: dict[tuple[int, str], Any]) -> dict[tuple[int, str], tuple[Any, Any]]:
    after = rows()
    assert after.keys() == before.keys()
    return {cell: (value, after[cell]) for cell, value in before.items() if value != after[cell]}
