# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout of a layer's qcow2 file: its tables and the offset of every block, computed from the index (pure).

Tables come first, then the blocks in ascending order. So a file can be written in one pass, in any order, and continued
after an interruption; parts of it can be requested by offset before any of it is there; and a layer's file is the same,
byte for byte, on every host. qemu-img can't do this: it writes such files only from a whole disk, in a further pass.
Format: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, Index
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import layer_file

_CLUSTER_BITS = 16
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_BACKING_FORMAT = 0xE2792ACA
COPIED = 1 << 63  # flag: the cluster's reference count is one; qemu-img check requires it
READS_AS_ZEROS = 1
ENTRIES = BLOCK // 8  # of a table that fills a cluster
_REFCOUNTS = BLOCK // 2  # of 16 bits in a cluster


class Layout(t.NamedTuple):
    """Where things lie in a layer's file, in bytes.

    ``tables``: the file's content up to ``data_at``, where the blocks begin. ``offsets``: of each block, by its number.
    """

    tables: bytes
    data_at: int
    offsets: dict[int, int]
    size: int


def _up(value: int, unit: int) -> int:
    return -(-value // unit)


def _refcount_clusters(others: int) -> tuple[int, int]:
    """Clusters for the reference counts of a file with ``others`` other clusters: for the table, and for the counts."""
    table = blocks = 1
    while True:
        wanted = _up(others + table + blocks, _REFCOUNTS)
        needed = (_up(wanted, ENTRIES), wanted)
        if needed == (table, blocks):
            return needed
        table, blocks = needed


def plan(index: Index) -> Layout:
    """Compute the layout of a layer's file. Its backing file is the layer below, in the same directory."""
    data = index.data
    second = sorted({number // ENTRIES for number in index.blocks})
    first_size = max(1, _up(index.virtual_size, BLOCK * ENTRIES))
    first_clusters = _up(first_size, ENTRIES)
    table, counts = _refcount_clusters(1 + first_clusters + len(second) + len(data))
    counts_at = 1 + table
    first_at = counts_at + counts
    second_at = first_at + first_clusters
    data_at = (second_at + len(second)) * BLOCK
    offsets = {number: data_at + place * BLOCK for place, number in enumerate(data)}
    total = second_at + len(second) + len(data)
    parts = [
        _header(index, first_at * BLOCK, first_size, table),
        _padded(struct.pack(f">{counts}Q", *(BLOCK * (counts_at + each) for each in range(counts))), table),
        _padded(b"\0\1" * total, counts),
        _padded(
            _first_table(first_size, {entry: second_at + place for place, entry in enumerate(second)}), first_clusters
        ),
        *(_second_table(entry, index, offsets) for entry in second),
    ]
    return Layout(b"".join(parts), data_at, offsets, total * BLOCK)


def _padded(text: bytes, clusters: int) -> bytes:
    return text.ljust(clusters * BLOCK, b"\0")


def _header(index: Index, first_at: int, first_size: int, table: int) -> bytes:
    backing = layer_file(index.parent).encode() if index.parent else b""
    extensions = struct.pack(">II8s", _BACKING_FORMAT, 5, b"qcow2") if backing else b""
    extensions += bytes(8)
    head = _HEADER.pack(
        b"QFI\xfb",
        3,
        _HEADER.size + len(extensions) if backing else 0,
        len(backing),
        _CLUSTER_BITS,
        index.virtual_size,
        0,  # not encrypted
        first_size,
        first_at,
        BLOCK,  # the table of reference counts is the second cluster
        table,
        0,  # no snapshots
        0,
        0,  # no features
        0,
        0,
        4,  # reference counts of 2**4 bits
        _HEADER.size,
    )
    return _padded(head + extensions + backing, 1)


def _first_table(size: int, second: t.Mapping[int, int]) -> bytes:
    return struct.pack(
        f">{size}Q", *(second[entry] * BLOCK | COPIED if entry in second else 0 for entry in range(size))
    )


def _second_table(entry: int, index: Index, offsets: t.Mapping[int, int]) -> bytes:
    numbers = range(entry * ENTRIES, (entry + 1) * ENTRIES)
    return struct.pack(
        f">{ENTRIES}Q",
        *(
            offsets[number] | COPIED if number in offsets else READS_AS_ZEROS if number in index.blocks else 0
            for number in numbers
        ),
    )
