# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides where each block of a layer comes from: layers on this host, or the source, in which order (pure)."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import Index


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Where the blocks of a layer come from, by their numbers.

    ``here``: blocks that this host has, as (digest of a layer, number there). ``order``: blocks to request, in the
    order in which they should come. ``repeats``: blocks that equal another one of this layer, and that one's number.
    """

    here: dict[int, tuple[str, int]]
    order: list[int]
    repeats: dict[int, int]


def plan_fetch(
    index: Index, whole: t.Container[int], local: t.Mapping[bytes, tuple[str, int]], first: t.Sequence[int] = ()
) -> Fetch:
    """Decide where each block comes from: nothing is requested that is here already, and nothing twice.

    :param whole: numbers of the blocks that an interrupted transfer has brought.
    :param local: the blocks of layers here, as (digest of the layer, number there), by hash.
    :param first: numbers of the layer's blocks that should come before the others, in this order.
    """
    here: dict[int, tuple[str, int]] = {}
    order: list[int] = []
    repeats: dict[int, int] = {}
    known: dict[bytes, int] = {}
    for number in dict.fromkeys([*first, *index.data]):
        found = index.blocks[number]
        if number in whole:
            known.setdefault(found, number)
        elif found in local:
            here[number] = local[found]
        elif found in known:
            repeats[number] = known[found]
        else:
            known[found] = number
            order.append(number)
    return Fetch(here, order, repeats)


def only(fetch: Fetch, wanted: t.Container[int]) -> Fetch:
    """The same, for the ``wanted`` blocks only."""
    repeats = {number: like for number, like in fetch.repeats.items() if number in wanted}
    return Fetch(
        {number: place for number, place in fetch.here.items() if number in wanted},
        [number for number in fetch.order if number in wanted],
        repeats,
    )


def places_by_hash(layers: t.Mapping[str, Index]) -> dict[bytes, tuple[str, int]]:
    """The blocks of layers here, as (digest of the layer, number there), by hash; of equal blocks the first counts."""
    places: dict[bytes, tuple[str, int]] = {}
    for digest, index in layers.items():
        for number in index.data:
            places.setdefault(index.blocks[number], (digest, number))
    return places


def nearest(fetch: Fetch) -> str | None:
    """The digest of the layer here that has the most of the blocks."""
    counts: dict[str, int] = {}
    for digest, dummy in fetch.here.values():
        counts[digest] = counts.get(digest, 0) + 1
    return max(counts, key=lambda digest: (counts[digest], digest)) if counts else None
