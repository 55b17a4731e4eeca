# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes large parts of a file past the page cache: open(2), O_DIRECT.

What a host keeps in memory for its machines isn't pushed out by an image that passes through, no memory is asked for
that is used once, and what was written is on the disk at once. Where the file system can't, it is written as any other
file.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import mmap
import os

ALIGNED = 4096
"""What places, lengths and memory have to be multiples of, with any disk."""


class Buffers:
    """Memory that begins with a page, used again and again: fresh memory costs more than what is copied into it.

    :param size: bytes of each.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: collections.deque[mmap.mmap] = collections.deque()

    def take(self, length: int) -> memoryview:
        """So many bytes that nobody else has, at most ``size``."""
        with contextlib.suppress(IndexError):
            return memoryview(self._free.pop())[:length]
        return memoryview(mmap.mmap(-1, self.size))[:length]

    def give(self, view: memoryview | bytes) -> None:
        """Nobody looks at them any more; what isn't from here is left alone."""
        if isinstance(view, memoryview) and isinstance(view.obj, mmap.mmap):
            self._free.append(view.obj)


class Direct:
    """Another descriptor of a file that ``descriptor`` is open for writing of.

    :param wanted: whether to go past the cache at all.
    """

    def __init__(self, path: str, descriptor: int, wanted: bool) -> None:
        self._cached = descriptor
        self._past: int | None = None
        if wanted:
            with contextlib.suppress(OSError):
                self._past = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW)

    @property
    def past(self) -> bool:
        """Whether it goes past the cache."""
        return self._past is not None

    def write(self, view: memoryview, to: int) -> None:
        """Write all of it, from byte ``to`` of the file on. :raises OSError: as pwrite(2) does."""
        while view:
            done = self._write_past(view, to) or os.pwrite(self._cached, view, to)
            view, to = view[done:], to + done

    def _write_past(self, view: memoryview, to: int) -> int:
        """Bytes written; 0 where it has to be done in another way."""
        if self._past is None or to % ALIGNED or len(view) % ALIGNED:
            return 0
        try:
            return os.pwrite(self._past, view, to)
        except OSError as exc:
            # The file system, or where the bytes are in memory; a disk that fails says something else
            if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            self.close()
            return 0

    def close(self) -> None:
        """Give the other descriptor up; writing goes on through the cache."""
        if self._past is not None:
            os.close(self._past)
            self._past = None
