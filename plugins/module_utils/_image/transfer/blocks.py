# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which blocks of a layer come from where, and in which order (pure)."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import Index


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Where the blocks of a layer come from.

    ``here``: number of a block and where it lies on this host, as (digest of the layer, number there). ``order``:
    numbers of the blocks that are asked for, in the order in which they are to come. ``repeats``: number of a block
    that is like one of ``order``, and that one's number.
    """

    here: dict[int, tuple[str, int]]
    order: list[int]
    repeats: dict[int, int]


def plan_fetch(
    index: Index, whole: t.Container[int], local: t.Mapping[bytes, tuple[str, int]], first: t.Sequence[int] = ()
) -> Fetch:
    """Ask for nothing that is on this host already, and for nothing twice.

    :param whole: numbers of the blocks that an interrupted transfer has brought.
    :param local: layer and number by hash.
    :param first: numbers of the layer's blocks that are to come before the others, in this order.
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
    """Of what is to be fetched these blocks alone."""
    repeats = {number: like for number, like in fetch.repeats.items() if number in wanted}
    return Fetch(
        {number: place for number, place in fetch.here.items() if number in wanted},
        [number for number in fetch.order if number in wanted],
        repeats,
    )


def places_by_hash(layers: t.Mapping[str, Index]) -> dict[bytes, tuple[str, int]]:
    """Where each block that layers here have lies; of equal ones the first counts."""
    places: dict[bytes, tuple[str, int]] = {}
    for digest, index in layers.items():
        for number in index.data:
            places.setdefault(index.blocks[number], (digest, number))
    return places


def nearest(fetch: Fetch) -> str | None:
    """The layer here that gives the most blocks."""
    counts: dict[str, int] = {}
    for digest, dummy in fetch.here.values():
        counts[digest] = counts.get(digest, 0) + 1
    return max(counts, key=lambda digest: (counts[digest], digest)) if counts else None
