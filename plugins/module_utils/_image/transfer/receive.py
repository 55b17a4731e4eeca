# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One layer on its way in: a file that has its final form from the first byte on, filled block by block, each verified.

What an interrupted run left is looked at block by block as well, so nothing is believed and nothing is fetched twice.
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
"""Bytes that are written before they are sent on to the disk."""
_LARGE = 2**26
"""Bytes of a layer from which on it goes past the page cache; a small one is read by the machine that it came for while
it is in there."""
Reader = t.Callable[[str, int], bytes]
"""Reads a block of a layer that is here: its digest, the block's number."""


class Incoming:
    """The file of a layer that is being received."""

    def __init__(self, path: str, index: Index) -> None:
        self.index = index
        self.layout: Layout = lay_out(index)
        self.path = path
        self.placed: t.Callable[[t.Iterable[int]], None] | None = None
        """Told the numbers of blocks that have come and are right."""
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def close(self) -> None:
        """Give the file up; what is in it stays."""
        os.close(self.descriptor)

    def kept(self) -> set[int]:
        """Numbers of the blocks that an earlier run has brought and that are right."""
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
        """All blocks are there: let the file say so. Nobody but us may have it."""
        write_tables(self.descriptor, self.layout.tables)

    def copy(self, here: t.Mapping[int, tuple[str, int]], read: Reader) -> list[int]:
        """Fill blocks from layers of this host; the numbers of those that were not what they should be there."""
        wrong = []
        for number, (digest, there) in here.items():
            block = read(digest, there)
            if block_hash(block) == self.index.blocks[number]:
                os.pwrite(self.descriptor, block, self.layout.offsets[number])
            else:
                wrong.append(number)
        return wrong

    def repeat(self, repeats: t.Mapping[int, int]) -> None:
        """Fill blocks that are like others of this layer."""
        for number, like in repeats.items():
            block = read_exactly(self.descriptor, BLOCK, self.layout.offsets[like])
            os.pwrite(self.descriptor, block, self.layout.offsets[number])
        if self.placed is not None:
            self.placed(repeats)

    def take(
        self,
        numbers: t.Sequence[int],
        stream: t.Iterable[bytes | memoryview],
        told: t.Callable[[int], None],
        done: t.Callable[[bytes | memoryview], None] = lambda dummy: None,
    ) -> list[int]:
        """Fill blocks from a stream that has them one after the other; the numbers of those that came wrong.

        Reading goes on while what came is hashed and written.
        :param told: called with the number of blocks that came so far.
        :param done: given each part of the stream that is no longer looked at.
        """
        wrong: list[int] = []
        failed: list[BaseException] = []
        pieces: queue.Queue[tuple[t.Sequence[int], bytes | memoryview] | None] = queue.Queue(_QUEUE)
        early = _Early(self.descriptor)
        # What machines wait for they read at once
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
                    told(came)
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
    """Has what was written go to the disk while more comes, so that there is little left to wait for at the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._flush: concurrent.futures.Future[None] | None = None
        self._waiting = 0

    def written(self, size: int) -> None:
        """So many bytes more. :raises OSError: where earlier ones could not be written."""
        self._waiting += size
        if self._waiting >= _EARLY and (self._flush is None or self._flush.done()):
            if self._flush is not None:
                self._flush.result()
            self._waiting = 0
            self._flush = self._pool.submit(os.fdatasync, self._descriptor)

    def close(self) -> None:
        """Nothing more comes. The kernel tells only once that it could not write, so it is told on from here."""
        self._pool.shutdown()
        if self._flush is not None:
            self._flush.result()


def _blocks(stream: t.Iterable[bytes | memoryview]) -> t.Iterator[bytes | memoryview]:
    """The same bytes in whole blocks; a rest that is none is left out."""
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
