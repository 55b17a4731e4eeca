# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Picking some of many: the first answers in an order, and keys at random by weight (pure)."""

from __future__ import annotations

import heapq
import itertools
import random
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.search import Answer, Expired, SortKey

Key = t.TypeVar("Key", bound=t.Hashable)


class Interrupted(Exception):
    """The deadline has passed; ``answers`` are the first in order of those that had come."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__()
        self.answers = answers


def smallest(every: t.Iterable[Answer], limit: int, key: t.Callable[[Answer], SortKey]) -> tuple[list[Answer], int]:
    """The first ``limit`` answers in the order of ``key``, and how many answers there were.

    :raises Interrupted: at the deadline, with the first of those that had come.
    """
    best: list[Answer] = []
    pending: list[Answer] = []
    count = 0
    try:
        for answer in every:
            count += 1
            pending.append(answer)
            if len(pending) >= max(1000, limit):
                best, pending = heapq.nsmallest(limit, [*best, *pending], key=key), []
    except Expired as exc:
        raise Interrupted(heapq.nsmallest(limit, [*best, *pending], key=key)) from exc
    return heapq.nsmallest(limit, [*best, *pending], key=key), count


class Lottery(t.Generic[Key]):
    """Draws keys at random, each as likely as its weight says, until it is dropped."""

    def __init__(self, weights: t.Mapping[Key, int], rng: random.Random) -> None:
        self._rng = rng
        self._weights = dict(weights)
        self._gone = 0
        self._fill()

    def _fill(self) -> None:
        self._keys = list(self._weights)
        largest = max(self._weights.values(), default=1)
        self._sums = list(itertools.accumulate(weight / largest for weight in self._weights.values()))
        self._gone = 0

    @property
    def left(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._weights)

    def draw(self) -> Key:
        """A random key; it stays."""
        while True:
            key = self._rng.choices(self._keys, cum_weights=self._sums)[0]
            if key in self._weights:
                return key

    def drop(self, key: Key) -> None:
        """Never draw this key again."""
        del self._weights[key]
        self._gone += 1
        # Dropped keys are only skipped for a while, because refilling takes time proportional to the number of keys.
        if self._gone * 8 > len(self._keys) or len(self._keys) < 64:
            self._fill()
