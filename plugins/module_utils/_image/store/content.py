# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a disk, block by block, and writing that as a layer. Holes are never read and never written."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import qemu_img
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, Blocks, Index, block_hash
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.layout import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._tool import check_space

_RUN = 64
"""Blocks that are read at a time."""

_NOTHING = bytes(BLOCK)
Told = t.Callable[[int, int], None]


class Run(t.NamedTuple):
    """``count`` blocks from ``number`` on, which lie in a file from byte ``at`` on. Without ``at`` they read as zeros."""

    number: int
    count: int
    at: int | None


class Content(t.NamedTuple):
    """A disk that was read: hashes of its blocks that aren't zeros, their places in the file, and blocks known to be
    zeros."""

    blocks: Blocks
    places: dict[int, int]
    zeros: set[int]


def raw_runs(descriptor: int) -> t.Iterator[Run]:
    """The parts of a raw disk's file that are not holes; lseek(2)."""
    end = os.fstat(descriptor).st_size
    at = 0
    while at < end:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return
            raise
        stop = os.lseek(descriptor, start, os.SEEK_HOLE)
        number, last = max(start // BLOCK, -(-at // BLOCK)), -(-stop // BLOCK)
        if last > number:
            yield Run(number, last - number, number * BLOCK)
        at = max(stop, last * BLOCK)


def overlay_runs(path: str) -> list[Run] | None:
    """The parts of a disk that an overlay gives itself, without what lies below it, as qemu-img tells them.

    :returns: ``None`` where its blocks don't lie in the file as they are: clusters of another size, compressed ones.
    """
    runs = []
    extents = qemu_img.extents(path)
    for extent in extents:
        if not extent["present"]:
            continue
        start, length = extent["start"], extent["length"]
        # Only the last extent, which ends with the disk, may end within a cluster.
        partial = start % BLOCK or (length % BLOCK and extent is not extents[-1])
        if partial or (extent["data"] and "offset" not in extent):
            return None
        runs.append(Run(start // BLOCK, -(-length // BLOCK), extent["offset"] if extent["data"] else None))
    return runs


def scan(descriptor: int, runs: t.Iterable[Run], told: Told | None = None) -> Content:
    """Read the runs and hash their blocks, on two threads: hashing is the longest part of it.

    :param told: called with the bytes read so far and, where it is known, those to be read.
    """
    content = Content({}, {}, set())
    pieces = [
        Run(run.number + skip, min(_RUN, run.count - skip), None if run.at is None else run.at + skip * BLOCK)
        for run in runs
        for skip in range(0, run.count, _RUN)
    ]
    total = sum(piece.count for piece in pieces if piece.at is not None) * BLOCK
    done = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for piece, hashes in zip(pieces, pool.map(lambda piece: _hashes(descriptor, piece), pieces)):
            for place, found in enumerate(hashes):
                number = piece.number + place
                if found is None:
                    content.zeros.add(number)
                else:
                    content.blocks[number] = found
                    content.places[number] = t.cast(int, piece.at) + place * BLOCK
            if piece.at is not None:
                done += piece.count * BLOCK
                if told is not None:
                    told(done, total)
    return content


def _hashes(descriptor: int, piece: Run) -> list[bytes | None]:
    if piece.at is None:
        return [None] * piece.count
    text = read_exactly(descriptor, piece.count * BLOCK, piece.at)
    view = memoryview(text)
    blocks = (view[place : place + BLOCK] for place in range(0, len(text), BLOCK))
    return [None if block == _NOTHING else block_hash(block) for block in blocks]


def read_exactly(descriptor: int, length: int, at: int) -> bytes:
    """So many bytes of a file; what lies beyond its end is zeros."""
    parts = []
    while length:
        part = os.pread(descriptor, length, at)
        if not part:
            parts.append(bytes(length))
            break
        parts.append(part)
        length -= len(part)
        at += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_layer(
    target: str, index: Index, sources: t.Sequence[tuple[int, t.Mapping[int, int]]], told: Told | None = None
) -> None:
    """Write the file of a layer from files that were read; the kernel copies, or shares where it can.

    :param sources: open files, each with the places in it of the blocks that are to be taken from it.
    """
    layout = plan(index)
    check_space(os.path.dirname(target), layout.size, "the layer")
    if {number for dummy, places in sources for number in places if number in layout.offsets} != set(layout.offsets):
        raise ValueError("the sources don't have all blocks of the layer")
    with open(target, "wb", buffering=0) as stream:
        write_tables(stream.fileno(), layout.tables)
        done = 0
        for descriptor, places in sources:
            moves = ((places[number], at, BLOCK) for number, at in layout.offsets.items() if number in places)
            for start, to, length in coalesce(moves):
                copy_range(descriptor, start, stream.fileno(), to, length)
                done += length
                if told is not None:
                    told(done, layout.size)
        stream.truncate(layout.size)


def write_tables(descriptor: int, tables: bytes, at: int = 0) -> None:
    """Write all of it, from byte ``at`` of the file on."""
    view = memoryview(tables)
    while view:
        done = os.pwrite(descriptor, view, at)
        view, at = view[done:], at + done


def coalesce(moves: t.Iterable[tuple[int, int, int]]) -> t.Iterator[tuple[int, int, int]]:
    """Join moves (from, to, bytes) that follow each other at both ends (pure)."""
    last: tuple[int, int, int] | None = None
    for start, to, length in moves:
        if last is not None and (start, to) == (last[0] + last[2], last[1] + last[2]):
            last = (last[0], last[1], last[2] + length)
            continue
        if last is not None:
            yield last
        last = (start, to, length)
    if last is not None:
        yield last


def copy_range(source: int, start: int, target: int, to: int, length: int) -> None:
    """Copy bytes between files inside the kernel; where it can't, through us. Beyond the source's end there is nothing."""
    while length:
        try:
            done = os.copy_file_range(source, target, min(length, 2**30), start, to)
        except OSError as exc:
            if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
                raise
            done = os.pwrite(target, os.pread(source, min(length, 2**20), start), to)
        if done == 0:
            return
        start, to, length = start + done, to + done, length - done


def verify(descriptor: int, places: t.Mapping[int, int], blocks: Blocks) -> list[int]:
    """The blocks that don't lie in the file as the index says."""
    found = scan(descriptor, (Run(number, 1, at) for number, at in places.items()))
    return [number for number in places if found.blocks.get(number) != blocks[number]]


def damaged(digest: str, numbers: t.Sequence[int], where: str) -> GridError:
    """The error for a layer whose file has other blocks than its digest says."""
    return GridError(
        "layer_corrupted",
        f"{len(numbers)} blocks of the layer {digest} on {where} are not what its digest says, the first at byte {numbers[0] * BLOCK} of the disk",
        remedy=f"Remove the layer on {where}, and get it again from another host or run the module image there, which makes it again",
        digest=digest,
        blocks=list(numbers[:100]),
    )
