# SPDX-License-Identifier: GPL-3.0-or-later
"""Which areas and cases are measured: the variable CASE, read in this one place.

An area that can be measured in parts has a tuple ``CASES`` with their names. ``CASE`` has the beginnings of names,
separated by commas; without it everything is measured.
"""

from __future__ import annotations

import os
import typing as t


class UnknownChoice(Exception):
    """An area or case that doesn't exist; the text lists those that do."""


def _words() -> tuple[str, ...]:
    return tuple(word.strip() for word in os.environ.get("CASE", "").split(",") if word.strip())


def chosen(cases: t.Iterable[str]) -> list[str]:
    """Those of an area's cases that are to be measured, in their order."""
    words = _words()
    return [case for case in cases if not words or case.startswith(words)]


def check_areas(wanted: t.Iterable[str], known: t.Sequence[str]) -> None:
    """:raises UnknownChoice: for an area that doesn't exist."""
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise UnknownChoice(f"no area {', '.join(unknown)}; there are: {', '.join(known)}")


def areas_to_measure(cases: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """The areas that have something to measure: all of them, or those with a case that ``CASE`` names.

    :param cases: the names of the cases of each area that was asked for; none for one that is only measured whole.
    :raises UnknownChoice: for a word of ``CASE`` that no case begins with.
    """
    words = _words()
    if not words:
        return list(cases)
    every = [case for names in cases.values() for case in names]
    unknown = [word for word in words if not any(case.startswith(word) for case in every)]
    if unknown:
        parts = [f"{area}: {', '.join(names) or 'only as a whole'}" for area, names in cases.items()]
        raise UnknownChoice(f"no case begins with {', '.join(unknown)}; there are:\n  " + "\n  ".join(parts))
    return [area for area, names in cases.items() if chosen(names)]
