# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes files past the page cache (O_DIRECT, see open(2)), and reuses buffers for it.

An image that is received doesn't push out of memory what the host's machines use, and what was written is on the disk
at once. Where the file system doesn't support it, the file is written in the usual way.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import mmap
import os

ALIGNED = 4096
"""Offsets, lengths and memory addresses must be multiples of this, in bytes; it suffices for any disk."""


class Buffers:
    """Page-aligned buffers that are reused, because fresh memory costs more than copying into it.

    :param size: bytes of each buffer.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: collections.deque[mmap.mmap] = collections.deque()

    def take(self, length: int) -> memoryview:
        """A free buffer of ``length`` bytes, at most ``size``."""
        with contextlib.suppress(IndexError):
            return memoryview(self._free.pop())[:length]
        return memoryview(mmap.mmap(-1, self.size))[:length]

    def give(self, view: memoryview | bytes) -> None:
        """Give a buffer back; other memory is ignored."""
        if isinstance(view, memoryview) and isinstance(view.obj, mmap.mmap):
            self._free.append(view.obj)


class Direct:
    """A second, direct descriptor of a file that is open for writing.

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
        """Whether writes go past the cache."""
        return self._past is not None

    def write(self, view: memoryview, to: int) -> None:
        """Write all of ``view`` from byte ``to`` of the file on. :raises OSError: as pwrite(2) does."""
        while view:
            done = self._write_past(view, to) or os.pwrite(self._cached, view, to)
            view, to = view[done:], to + done

    def _write_past(self, view: memoryview, to: int) -> int:
        """Write past the cache; the bytes written, 0 where that isn't possible."""
        if self._past is None or to % ALIGNED or len(view) % ALIGNED:
            return 0
        try:
            return os.pwrite(self._past, view, to)
        except OSError as exc:
            # The file system or the alignment doesn't allow it; a failing disk reports another error
            if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            self.close()
            return 0

    def close(self) -> None:
        """Close the direct descriptor; further writes go through the cache."""
        if self._past is not None:
            os.close(self._past)
            self._past = None
