# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes and durations as people write them (``2 GiB``, ``20 ms``) and as programs count them (bytes, seconds)."""

from __future__ import annotations

import re
from decimal import Decimal

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

_PREFIXES = ("", "K", "M", "G", "T", "P", "E")
UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(_PREFIXES) if prefix},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(_PREFIXES) if prefix},
}
_BY_LOWER = {unit.lower(): factor for unit, factor in UNITS.items()}
_SIZE = re.compile(r"\s*(\d{1,20}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_size(value: object, what: str = "size", *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
    """Read a size such as ``512 MiB``, ``2GiB``, ``1.5 TB`` or a plain number of bytes.

    Units are binary (KiB, MiB, GiB, TiB, PiB; IEC 80000-13) or decimal (kB, MB, GB, TB, PB; SI), in any case.

    :param what: what the value is, for the error's text.
    :returns: bytes.
    :raises GridError: ``invalid_size`` for other text, a fraction of a byte, or a size outside ``minimum`` to
        ``maximum`` (both in bytes, both allowed).
    """
    match = None if isinstance(value, bool) else _SIZE.fullmatch(str(value))
    factor = _BY_LOWER.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise GridError(
            "invalid_size",
            f"{what} {str(value)[:60]!r} is not a size",
            remedy="Write a positive number and a unit, for example 512 MiB or 20 GiB",
        )
    size = Decimal(match.group(1)) * factor
    if size != int(size) or not minimum <= size <= maximum:
        raise GridError(
            "invalid_size",
            f"{what} {str(value)[:60]!r} is out of range",
            remedy=f"Give between {format_size(minimum)} and {format_size(maximum)}, in whole bytes",
        )
    return int(size)


def format_size(size: int | float) -> str:
    """A size in bytes as text: ``1.5 GiB``, ``512 MiB``, ``17 B``; binary units, at most two decimals."""
    power = 0
    scaled = float(size)
    while abs(scaled) >= 1024 and power < len(_PREFIXES) - 1:
        scaled /= 1024
        power += 1
    number = f"{scaled:.2f}".rstrip("0").rstrip(".")
    return f"{number} {_PREFIXES[power]}{'iB' if power else 'B'}"


_SECONDS = {
    **dict.fromkeys(("", "s", "second", "seconds"), Decimal(1)),
    **dict.fromkeys(("us", "µs"), Decimal("0.000001")),
    "ms": Decimal("0.001"),
    **dict.fromkeys(("min", "minute", "minutes"), Decimal(60)),
    **dict.fromkeys(("h", "hour", "hours"), Decimal(3600)),
    **dict.fromkeys(("d", "day", "days"), Decimal(86400)),
}
_DURATION = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*([A-Za-zµ]*)\s*")


def parse_duration(value: object, what: str = "duration") -> float:
    """Read a duration such as ``20 ms``, ``1.5 s``, ``2 h`` or a plain number of seconds.

    :param what: what the value is, for the error's text.
    :returns: seconds, not negative.
    :raises GridError: ``invalid_duration``.
    """
    match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value))
    factor = _SECONDS.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise GridError(
            "invalid_duration",
            f"{what} {str(value)[:60]!r} is not a time",
            remedy="Write a number and a unit (us, ms, s, min, h, d), for example 20 ms or 2 h",
        )
    return float(Decimal(match.group(1)) * factor)
