# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditions such as ``memory >= 1 GiB``, parsed; and the columns that each kind of object has (pure)."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import math
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_duration, parse_size

Value = t.Union[str, int, float, bool, None]

# The form of each column: text, size (bytes), count, number or time.
_OBJECT = {"uuid": "text", "name": "text"}
_HOST = {
    **_OBJECT,
    **dict.fromkeys(("kind", "site", "state", "address", "architecture", "network", "mac"), "text"),
    **{"cpus": "count", "memory": "size", "disk": "size", "seen": "time", "missing": "time"},
}
_MEASURED = {
    **dict.fromkeys(("virtualization", "libvirt_version", "qemu_version"), "text"),
    **dict.fromkeys(("memory_free", "memory_allocated", "memory_available", "disk_free", "disk_allocated"), "size"),
    **{"cpus_allocated": "count", "load": "number", "price": "number"},
}
_ORDERED = {**dict.fromkeys(("owner", "provider", "image", "image_digest"), "text"), "generation": "count"}

COLUMNS: dict[str, dict[str, str]] = {
    "host": {**_HOST, **_MEASURED, **_ORDERED},
    "provider": {**_HOST, **_MEASURED},
    "machine": {**_HOST, **_ORDERED},
    "home": _HOST,
    "site": _OBJECT,
    "network": {**_OBJECT, "home": "text", "owner": "text", "vni": "count", "mtu": "count", "hosts": "count"},
    "image": {**_OBJECT, "version": "text", "digest": "text", "virtual_size": "size", "size": "size"},
    "link": {
        **dict.fromkeys(("uuid", "site_a", "site_b", "kind", "transport", "state"), "text"),
        **{"vni": "count", "mtu": "count", "seen": "time"},
    },
    "device": {**_OBJECT, **dict.fromkeys(("kind", "home", "machine", "state"), "text"), "seen": "time"},
}
"""The columns of each kind of object, and their forms."""

HOSTS = ("host", "provider", "machine", "home")

ORDERED_FORMS = ("size", "count", "number", "time")
NUMERIC_FORMS = ("size", "count", "number")

_CONDITION = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)\s*"
    r"(==|!=|<=|>=|<|>|=|not\s+in\b|in\b|like\b|is\s+known\s*$|is\s+unknown\s*$)\s*(.*)",
    re.DOTALL,
)
_WORDS = {"=": "==", "is known": "known", "is unknown": "unknown"}
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "like", "known", "unknown")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Condition:
    """A column compared with values: ``known`` and ``unknown`` have none, ``in`` and ``not in`` several, others one."""

    column: str
    operator: str
    values: tuple[Value, ...]


def check_kind(kind: object) -> str:
    """:raises GridError: ``unknown_kind``."""
    if not isinstance(kind, str) or kind not in COLUMNS:
        raise GridError(
            "unknown_kind",
            f"there are no objects of the kind {shorten(kind)}",
            remedy=f"Ask for one of {', '.join(COLUMNS)}",
        )
    return kind


def form_of(kind: str, column: object) -> str:
    """The form of a column.

    :raises GridError: ``unknown_column``.
    """
    form = COLUMNS[kind].get(column) if isinstance(column, str) else None
    if form is None:
        near = difflib.get_close_matches(str(column)[:80], COLUMNS[kind], 1)
        raise GridError(
            "unknown_column",
            f"a {kind} has no column {shorten(column)}" + (f"; did you mean {near[0]}?" if near else ""),
            remedy=f"Use one of {', '.join(sorted(COLUMNS[kind]))}",
            column=str(column)[:80],
        )
    return form


def split(given: object) -> tuple[str, str, object]:
    """Column, operator and value of a condition, which is text or a mapping with these keys.

    :raises GridError: ``invalid_condition``.
    """
    if isinstance(given, t.Mapping):
        column, operator, value = given.get("column"), given.get("operator", "=="), given.get("value")
        operator = _WORDS.get(operator, operator) if isinstance(operator, str) else operator
        if set(given) <= {"column", "operator", "value"} and isinstance(column, str) and operator in OPERATORS:
            return column, operator, value
    match = _CONDITION.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise GridError(
            "invalid_condition",
            f"{shorten(given)} is not a condition",
            remedy=f"Write a column, one of {', '.join(OPERATORS[:9])}, and a value, for example memory >= 1 GiB; "
            "or: is known, is unknown",
        )
    operator = " ".join(match.group(2).split())
    return match.group(1), _WORDS.get(operator, operator), match.group(3).strip()


def parse(kind: str, given: object, now: datetime.datetime | None = None) -> Condition:
    """One condition on an object of this kind.

    :param now: the time from which an age such as ``2 h ago`` counts.
    :raises GridError: ``invalid_condition``, ``unknown_column``, ``unknown_unit``, ``invalid_value``.
    """
    column, operator, value = split(given)
    form = form_of(kind, column)
    if operator in ("known", "unknown"):
        return Condition(column, operator, ())
    if (operator == "like") != (form == "text") and operator in ("like", "<", "<=", ">", ">="):
        raise GridError(
            "invalid_condition",
            f"{column} is a {form}, which can't be compared by {operator}",
            remedy="Compare text by ==, !=, in, not in or like" if form == "text" else "Use like for text only",
        )
    if operator in ("in", "not in"):
        values = value if isinstance(value, (list, tuple)) else str(value).strip("[]() ").split(",")
        return Condition(column, operator, tuple(parse_value(column, form, item, now) for item in values))
    return Condition(column, operator, (parse_value(column, form, value, now),))


def parse_value(column: str, form: str, value: object, now: datetime.datetime | None = None) -> Value:
    """A value in the column's form.

    :raises GridError: ``unknown_unit``, ``invalid_value``.
    """
    if isinstance(value, (dict, list, tuple, bool)) or value is None or value == "":
        raise _invalid(column, form, value)
    text = str(value).strip()
    if form == "text":
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        text = text[1:-1] if quoted else text
        if "\0" in text or len(text) > 1000:
            raise _invalid(column, form, value)
        return text
    if form == "time":
        return _time(column, text, now)
    number, unit = _number_and_unit(text)
    if number is None:
        raise _invalid(column, form, value)
    if form == "size":
        try:
            return parse_size(text, column)
        except GridError as exc:
            raise GridError("unknown_unit", exc.msg, remedy=exc.remedy, column=column) from exc
    if unit:
        raise GridError(
            "unknown_unit",
            f"{column} is a plain number; {shorten(unit)} is no unit of it",
            remedy="Leave the unit out",
            column=column,
        )
    if form == "count":
        if number != int(number) or abs(number) >= 2**63:
            raise _invalid(column, form, value)
        return int(number)
    return number


def _number_and_unit(text: str) -> tuple[float | None, str]:
    match = re.fullmatch(r"([+-]?\d{1,20}(?:\.\d{1,12})?(?:e[+-]?\d{1,3})?)\s*(.*)", text, re.ASCII | re.DOTALL)
    number = float(match.group(1)) if match else math.nan
    return (number, match.group(2)) if match and math.isfinite(number) else (None, "")


def _time(column: str, text: str, now: datetime.datetime | None) -> str:
    if _TIME.fullmatch(text):
        return text
    if text.endswith(" ago"):
        try:
            seconds = parse_duration(text[: -len(" ago")], column)
            then = (now or datetime.datetime.now(datetime.timezone.utc)) - datetime.timedelta(seconds=seconds)
        except GridError as exc:
            raise GridError("unknown_unit", exc.msg, remedy=exc.remedy, column=column) from exc
        except OverflowError as exc:
            raise _invalid(column, "time", text) from exc
        return then.strftime("%Y-%m-%dT%H:%M:%SZ")
    raise _invalid(column, "time", text)


def _invalid(column: str, form: str, value: object) -> GridError:
    example = {
        "size": "1 GiB",
        "count": "4",
        "number": "0.5",
        "time": "2026-11-01T12:00:00Z or 2 h ago",
        "text": "north",
    }[form]
    return GridError(
        "invalid_value",
        f"{column} is a {form}, and {shorten(value)} is none",
        remedy=f"Write for example {example}",
        column=column,
    )
