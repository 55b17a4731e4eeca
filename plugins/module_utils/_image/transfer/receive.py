# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of a layer that is being received: filled block by block, each block verified.

The file has its final layout from the first byte on. What an interrupted run left is verified block by block as well,
so no block is trusted and none is fetched twice.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import queue
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import (
    coalesce,
    raw_runs,
    read_exactly,
    scan,
    write_tables,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, Index, block_hash
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.layout import Layout
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.layout import plan as lay_out
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.direct import Direct

_QUEUE = 16
_EARLY = 2**24
"""Bytes that are written before the kernel is told to flush them."""
_LARGE = 2**26
"""Bytes of a layer from which on it is written past the page cache. A small one is better kept in the cache, because
the machine that it came for reads it soon."""
Reader = t.Callable[[str, int], bytes]
"""Reads a block of a layer on this host, given the layer's digest and the block's number."""


class Incoming:
    """The file of a layer that is being received. ``placed``, if set, is called with the numbers of verified blocks."""

    def __init__(self, path: str, index: Index) -> None:
        self.index = index
        self.layout: Layout = lay_out(index)
        self.path = path
        self.placed: t.Callable[[t.Iterable[int]], None] | None = None
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def close(self) -> None:
        """Close the file; its content stays for a later run."""
        os.close(self.descriptor)

    def kept(self) -> set[int]:
        """Numbers of the blocks that an earlier run has brought, verified."""
        begin = self.layout.data_at // BLOCK
        numbers = list(self.layout.offsets)
        runs = (run for run in raw_runs(self.descriptor) if run.number + run.count > begin)
        found = scan(self.descriptor, runs).blocks
        kept = {
            numbers[place - begin]
            for place, hashed in found.items()
            if begin <= place < begin + len(numbers) and self.index.blocks[numbers[place - begin]] == hashed
        }
        if self.placed is not None:
            self.placed(kept)
        return kept

    def finish(self) -> None:
        """Write the final tables: all blocks are there. No pager may read the file meanwhile."""
        write_tables(self.descriptor, self.layout.tables)

    def copy(self, here: t.Mapping[int, tuple[str, int]], read: Reader) -> list[int]:
        """Copy blocks from layers on this host.

        :param here: where each block is, as (digest of a layer, number there).
        :returns: numbers of the blocks that are damaged there.
        """
        wrong = []
        for number, (digest, there) in here.items():
            block = read(digest, there)
            if block_hash(block) == self.index.blocks[number]:
                os.pwrite(self.descriptor, block, self.layout.offsets[number])
            else:
                wrong.append(number)
        return wrong

    def repeat(self, repeats: t.Mapping[int, int]) -> None:
        """Copy blocks within this layer. :param repeats: number of each, and of the block with the same content."""
        for number, like in repeats.items():
            block = read_exactly(self.descriptor, BLOCK, self.layout.offsets[like])
            os.pwrite(self.descriptor, block, self.layout.offsets[number])
        if self.placed is not None:
            self.placed(repeats)

    def take(
        self,
        numbers: t.Sequence[int],
        stream: t.Iterable[bytes | memoryview],
        report: t.Callable[[int], None],
        done: t.Callable[[bytes | memoryview], None] = lambda dummy: None,
    ) -> list[int]:
        """Write blocks from a stream that has them one after the other. A thread hashes and writes while this one
        reads.

        :param report: called with the number of blocks that came so far.
        :param done: called with each part of the stream that is no longer needed.
        :returns: numbers of the blocks that came damaged.
        """
        wrong: list[int] = []
        failed: list[BaseException] = []
        pieces: queue.Queue[tuple[t.Sequence[int], bytes | memoryview] | None] = queue.Queue(_QUEUE)
        early = _Early(self.descriptor)
        # Machines that wait for the blocks read them at once, from the cache
        direct = Direct(self.path, self.descriptor, self.placed is None and len(self.layout.offsets) * BLOCK >= _LARGE)

        def work() -> None:
            while True:
                piece = pieces.get()
                if piece is None:
                    return
                if not failed:
                    try:
                        wrong.extend(self._place(*piece, direct))
                        if not direct.past:
                            early.written(len(piece[1]))
                        done(piece[1])
                    except BaseException as exc:  # pylint: disable=broad-except
                        failed.append(exc)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            with contextlib.closing(_blocks(stream)) as parts:
                came = 0
                for text in parts:
                    count = len(text) // BLOCK
                    pieces.put((numbers[came : came + count], text))
                    came += count
                    report(came)
                    if failed:
                        break
        finally:
            pieces.put(None)
            worker.join()
            direct.close()
            early.close()
        if failed:
            raise failed[0]
        return wrong

    def _place(self, numbers: t.Sequence[int], text: bytes | memoryview, direct: Direct) -> list[int]:
        view = memoryview(text)
        hashes = [block_hash(view[place * BLOCK : (place + 1) * BLOCK]) for place in range(len(numbers))]
        wrong = set(plan.wrong_blocks(numbers, hashes, self.index.blocks))
        moves = (
            (place * BLOCK, self.layout.offsets[number], BLOCK)
            for place, number in enumerate(numbers)
            if number not in wrong
        )
        for start, to, length in coalesce(moves):
            direct.write(view[start : start + length], to)
        if self.placed is not None:
            self.placed(number for number in numbers if number not in wrong)
        return sorted(wrong)


class _Early:
    """Flushes what was written while more comes, so that little is left to flush at the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._flush: concurrent.futures.Future[None] | None = None
        self._waiting = 0

    def written(self, size: int) -> None:
        """Count bytes that were written, and flush if due. :raises OSError: where an earlier flush failed."""
        self._waiting += size
        if self._waiting >= _EARLY and (self._flush is None or self._flush.done()):
            if self._flush is not None:
                self._flush.result()
            self._waiting = 0
            self._flush = self._pool.submit(os.fdatasync, self._descriptor)

    def close(self) -> None:
        """Wait for the last flush. :raises OSError: where it failed; the kernel reports such an error only once."""
        self._pool.shutdown()
        if self._flush is not None:
            self._flush.result()


def _blocks(stream: t.Iterable[bytes | memoryview]) -> t.Generator[bytes | memoryview, None, None]:
    """The stream's bytes in whole blocks; an incomplete last block is dropped."""
    rest = bytearray()
    for text in stream:
        if not rest and len(text) % BLOCK == 0:
            yield text
            continue
        rest += text
        whole = len(rest) // BLOCK * BLOCK
        if whole:
            yield bytes(rest[:whole])
            del rest[:whole]
