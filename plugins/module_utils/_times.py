# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times and durations as the store keeps them: points in time as ISO 8601 text in UTC, durations in microseconds."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

FOREVER = "9999-12-31T23:59:59Z"
"""Stands for "no end". Times are compared as text, so this sorts after all others."""

_UNITS = {"": 1, "us": 1, "ms": 1000, "s": 1000000}
_DURATION = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)\s*", re.ASCII)


def now() -> str:
    """The current time, in the store's form."""
    return _text(datetime.datetime.now(datetime.timezone.utc))


def _text(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def before(seconds: int, time: str) -> str:
    """The point in time ``seconds`` before ``time``; not before the year 1."""
    try:
        return _text(datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ") - datetime.timedelta(seconds=seconds))
    except OverflowError:
        return "0001-01-01T00:00:00Z"


def parse_time(value: object, what: str = "time") -> str:
    """Read a point in time such as ``2026-11-24T10:00:00Z``; without an offset it is in UTC.

    :param what: what the value is, for the error's text.
    :returns: the same in UTC, whole seconds.

    :raises GridError: ``invalid_time``.
    """
    text = str(value).strip()
    try:
        # Before 3.11 Python reads offsets, but not the letter Z.
        time = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
        if time.tzinfo is None:
            time = time.replace(tzinfo=datetime.timezone.utc)
        time = time.astimezone(datetime.timezone.utc)
        if time.year < 1000:
            raise ValueError("before the year 1000")
        return _text(time)
    except (ValueError, OverflowError) as exc:
        raise GridError(
            "invalid_time",
            f"{what} {text[:60]!r} is not a point in time",
            remedy="Write it as 2026-11-24T10:00:00Z (ISO 8601)",
        ) from exc


def parse_microseconds(value: object, what: str = "duration", *, minimum: int = 0, maximum: int = 10**12) -> int:
    """Read a duration such as ``100 ms``, ``0.5 s`` or a plain number of microseconds.

    Durations in seconds, up to days, are read by ``_units.parse_duration``.

    :param what: what the value is, for the error's text.
    :returns: microseconds.
    :raises GridError: ``invalid_duration`` for other text, or a value outside ``minimum`` to ``maximum`` (both in
        microseconds, both allowed).
    """
    match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value))
    factor = _UNITS.get(match.group(2)) if match else None
    if match is None or factor is None:
        raise GridError(
            "invalid_duration",
            f"{what} {str(value)[:60]!r} is not a length of time",
            remedy="Write a positive number and a unit (us, ms, s), for example 100 ms",
        )
    microseconds = Decimal(match.group(1)) * factor
    if microseconds != int(microseconds) or not minimum <= microseconds <= maximum:
        raise GridError(
            "invalid_duration",
            f"{what} {str(value)[:60]!r} is out of range",
            remedy=f"Give between {minimum} us and {maximum} us, in whole microseconds",
        )
    return int(microseconds)
