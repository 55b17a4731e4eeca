# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads disks block by block, hashes and verifies blocks, writes layer files. Holes are neither read nor written."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import qemu_img
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, Blocks, Index, block_hash
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.layout import plan

_RUN = 64
"""Blocks that are read at a time."""

_NOTHING = bytes(BLOCK)
Report = t.Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclasses.dataclass(frozen=True)
class Run:
    """``count`` blocks from ``number`` on, stored in a file from byte ``at`` on; without ``at`` they read as zeros."""

    number: int
    count: int
    at: t.Optional[int]


class Content(t.NamedTuple):
    """A disk that was read: hashes of its blocks that aren't zeros, their offsets in the file in bytes, and the numbers
    of blocks that are known to be zeros."""

    blocks: Blocks
    places: dict[int, int]
    zeros: set[int]


def raw_runs(descriptor: int) -> t.Iterator[Run]:
    """The parts of a raw disk's file that are not holes, see lseek(2)."""
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
    """The parts of a disk that a qcow2 overlay holds itself, without the layers below it.

    :returns: ``None`` where blocks can't be read from the file directly: clusters are compressed or of another size.
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


def scan(descriptor: int, runs: t.Iterable[Run], report: Report | None = None) -> Content:
    """Read the runs and hash their blocks, on two threads because hashing takes the longest."""
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
                if report is not None:
                    report(done, total)
    return content


def _hashes(descriptor: int, piece: Run) -> list[bytes | None]:
    if piece.at is None:
        return [None] * piece.count
    text = read_exactly(descriptor, piece.count * BLOCK, piece.at)
    view = memoryview(text)
    blocks = (view[place : place + BLOCK] for place in range(0, len(text), BLOCK))
    return [None if block == _NOTHING else block_hash(block) for block in blocks]


def read_exactly(descriptor: int, length: int, at: int) -> bytes:
    """Read ``length`` bytes from byte ``at`` on; beyond the file's end they are zeros."""
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
    target: str, index: Index, sources: t.Sequence[tuple[int, t.Mapping[int, int]]], report: Report | None = None
) -> None:
    """Write a layer's file. The kernel copies its blocks, or shares them where the file system can.

    :param sources: open files, each with the offsets, by block number, of the blocks to take from it.
    :raises GridError: ``disk_full``.
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
                if report is not None:
                    report(done, layout.size)
        stream.truncate(layout.size)


def write_tables(descriptor: int, tables: bytes, at: int = 0) -> None:
    """Write all of ``tables`` from byte ``at`` of the file on."""
    view = memoryview(tables)
    while view:
        done = os.pwrite(descriptor, view, at)
        view, at = view[done:], at + done


def coalesce(moves: t.Iterable[tuple[int, int, int]]) -> t.Iterator[tuple[int, int, int]]:
    """Join moves (from, to, bytes) that continue each other at both ends (pure)."""
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
    """Copy bytes between files, inside the kernel where it can. Copying stops at the end of the source."""
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
    """The numbers of blocks whose content in the file is not what the index says.

    :param places: offset of each block in the file.
    """
    found = scan(descriptor, (Run(number, 1, at) for number, at in places.items()))
    return [number for number in places if found.blocks.get(number) != blocks[number]]


def damaged(digest: str, numbers: t.Sequence[int], where: str) -> GridError:
    """The error for a layer whose file has other content than its digest says.

    :param numbers: of the damaged blocks. :param where: the host that has the file.
    """
    return GridError(
        "layer_corrupted",
        f"{len(numbers)} blocks of the layer {digest} on {where} are not what its digest says, "
        f"the first at byte {numbers[0] * BLOCK} of the disk",
        remedy=f"Remove the layer on {where}, and get it again from another host or run the module image there, "
        "which makes it again",
        digest=digest,
        blocks=list(numbers[:100]),
    )
