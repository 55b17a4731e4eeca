# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine reads while it boots: the numbers of an image's blocks in the order of their first read (pure).

A pager keeps what was read in a qcow2 file, which gives clusters their places in the order in which they come; so that
file is the record. It lies beside the layer and goes with it to other hosts. It is a hint: which blocks come first,
never what is in them.
"""

from __future__ import annotations

import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, MAX_BLOCKS

Runs = t.List[t.List[int]]
"""Neighbours that were read one after the other: the number of the first, and how many."""

MOST = 4096
"""Blocks of a record: 256 MiB. What is read later isn't the boot's."""

FIRST = 512
"""Blocks that come first where there is no long record: of a disk with a kernel at its beginning, where boot loaders
and we put it, these have that."""

MAX_TEXT = 2**20


def runs_of(numbers: t.Iterable[int]) -> Runs:
    """The numbers, shorter."""
    runs: Runs = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    return runs


def numbers_of(runs: t.Any) -> list[int]:
    """What another host, or a file, says that it read; the record's end is cut off, and what was said twice.

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
    """A record from its file. :raises GridError: ``invalid_record``."""
    try:
        return numbers_of(json.loads(text[: MAX_TEXT + 1]))
    except (ValueError, RecursionError) as exc:
        raise _bad("is not JSON") from exc


def encode(numbers: t.Iterable[int]) -> bytes:
    """A record's file."""
    return json.dumps(runs_of(numbers), separators=(",", ":")).encode() + b"\n"


def read_order(extents: t.Iterable[t.Mapping[str, t.Any]]) -> list[int]:
    """The order in which clusters came into a pager's cache, from what ``qemu-img map`` says of it."""
    places = [
        (extent["offset"] + step, (extent["start"] + step) // BLOCK)
        for extent in extents
        if extent["present"] and extent["data"] and "offset" in extent
        for step in range(0, extent["length"], BLOCK)
    ]
    return [number for dummy, number in sorted(places)][:MOST]


def merge(known: t.Sequence[int], new: t.Sequence[int]) -> list[int]:
    """The longer of two records, then what only the other one has: one that ended early has less, but right at the
    beginning."""
    first, second = (known, new) if len(known) >= len(new) else (new, known)
    return list(dict.fromkeys([*first, *second]))[:MOST]


def wanted_first(record: t.Sequence[int] | None, data: t.Sequence[int]) -> list[int]:
    """Which of a layer's blocks, ``data``, a boot is to have first, in that order.

    A record is short where the image was there before the boot had ended: then the beginning of the disk follows.
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
