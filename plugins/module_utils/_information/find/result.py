# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a question, as the module and the lookup ``find`` return it. Types only."""

from __future__ import annotations

import typing as t


class Cost(t.TypedDict):
    """What answering took."""

    seconds: float
    method: str  # exact, sample or sql
    statements: int
    rows: int  # that were read
    draws: int  # that a sample took
    combinations: int | None  # sets before the conditions on sets; None if they were not counted
    expired: bool  # whether the deadline passed


class FindResult(t.TypedDict):
    """The answers, and how complete they are."""

    found: list[dict[str, object]]  # of single objects their columns; of sets members and sum
    answer: str  # complete, sample or cut
    more: bool | None  # whether there are more answers than the limit; None if that isn't known
    seed: int | None
    cost: Cost
