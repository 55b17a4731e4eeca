# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot records: which blocks of an image a machine reads while it boots, in the order of their first read (pure).

A pager's cache is a qcow2 file, whose clusters lie in the order in which they were read; the record is made from it. It
lies beside the layer and goes with it to other hosts. It is a hint about which blocks to send first, and never says
what is in them. ``boot_store`` keeps the files.
"""

from __future__ import annotations

import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, MAX_BLOCKS

if t.TYPE_CHECKING:
    # Not at run time: transfers import this file before they have a connection
    from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.qemu_img import Extent

Runs = t.List[t.List[int]]
"""Neighbouring blocks that were read one after the other: each run is [number of the first, how many]."""

MOST = 4096
"""The most blocks of a record: 256 MiB. What is read later isn't part of the boot."""

FIRST = 512
"""Blocks at the beginning of the disk that are sent first where the record is short. Boot loaders, ours too, put the
kernel there."""

MAX_TEXT = 2**20
"""Bytes of a record's file."""


def runs_of(numbers: t.Iterable[int]) -> Runs:
    """Join block numbers into runs."""
    runs: Runs = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    return runs


def numbers_of(runs: object) -> list[int]:
    """The block numbers of a record from another host or a file, each once, at most ``MOST``.

    :raises GridError: ``invalid_record``.
    """
    if not isinstance(runs, list) or not all(
        isinstance(run, list) and [type(value) for value in run] == [int, int] for run in runs
    ):
        raise _bad("has something that is no run of blocks")
    numbers: dict[int, None] = {}
    for number, count in runs:
        if not (0 <= number < MAX_BLOCKS and 0 < count <= MOST):
            raise _bad("has a run that is out of range")
        numbers.update(dict.fromkeys(range(number, number + count)))
        if len(numbers) >= MOST:
            break
    return list(numbers)[:MOST]


def parse(text: bytes) -> list[int]:
    """Read the text of a record's file. :raises GridError: ``invalid_record``."""
    try:
        return numbers_of(json.loads(text[: MAX_TEXT + 1]))
    except (ValueError, RecursionError) as exc:
        raise _bad("is not JSON") from exc


def encode(numbers: t.Iterable[int]) -> bytes:
    """The text of a record's file."""
    return json.dumps(runs_of(numbers), separators=(",", ":")).encode() + b"\n"


def read_order(extents: t.Iterable[Extent]) -> list[int]:
    """The order in which blocks came into a pager's cache.

    :param extents: of the cache's file, from ``qemu_img.extents``.
    """
    places = [
        (extent["offset"] + step, (extent["start"] + step) // BLOCK)
        for extent in extents
        if extent["present"] and extent["data"] and "offset" in extent
        for step in range(0, extent["length"], BLOCK)
    ]
    return [number for dummy, number in sorted(places)][:MOST]


def merge(known: t.Sequence[int], new: t.Sequence[int]) -> list[int]:
    """Merge two records: the longer one, then what only the other has. A shorter record is of a boot that was cut off;
    what it has comes early all the same."""
    first, second = (known, new) if len(known) >= len(new) else (new, known)
    return list(dict.fromkeys([*first, *second]))[:MOST]


def wanted_first(record: t.Sequence[int] | None, data: t.Sequence[int]) -> list[int]:
    """The blocks of a layer that a transfer sends first, in order.

    A record is short where the whole image arrived before the boot had ended; then blocks from the beginning of the
    disk follow, up to ``FIRST`` in all.

    :param data: numbers of all blocks of the layer.
    """
    there = set(data)
    known = [number for number in record or [] if number in there]
    return list(dict.fromkeys([*known, *data[:FIRST]]))[: max(len(known), FIRST)]


def _bad(why: str) -> GridError:
    return GridError(
        "invalid_record",
        f"the record of what a boot reads {why}",
        remedy="Remove the layer's .boot file; the next boot makes it anew",
    )
