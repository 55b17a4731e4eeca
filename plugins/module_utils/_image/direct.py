# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes large parts of a file past the page cache: open(2), O_DIRECT.

What a host keeps in memory for its machines isn't pushed out by an image that passes through, no memory is asked for that is used once, and what was
written is on its way to the disk at once. Where the file system can't, it is written as any other file.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os

SCRATCH = 2**22
"""Bytes that are written at a time."""
ALIGNED = 4096
"""What places, lengths and memory have to be multiples of, with any disk."""


class Direct:
    """A second descriptor of a file that ``descriptor`` is open for writing of; each thread has its own.

    :param wanted: whether to go past the cache at all.
    """

    def __init__(self, path: str, descriptor: int, wanted: bool) -> None:
        self._cached = descriptor
        self._past: int | None = None
        if wanted:
            with contextlib.suppress(OSError):
                self._past = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW)
        # Anonymous memory begins with a page
        self._scratch = mmap.mmap(-1, SCRATCH) if self._past is not None else None

    @property
    def past(self) -> bool:
        """Whether it goes past the cache."""
        return self._past is not None

    def write(self, view: memoryview, to: int) -> None:
        """Write all of it, from byte ``to`` of the file on. :raises OSError: as pwrite(2) does."""
        while view:
            part = view[:SCRATCH]
            done = self._write_past(part, to)
            if not done:
                done = os.pwrite(self._cached, part, to)
            view, to = view[done:], to + done

    def _write_past(self, part: memoryview, to: int) -> int:
        """Bytes written; 0 where it has to be done in another way, as from then on everything."""
        if self._past is None or self._scratch is None or to % ALIGNED or len(part) % ALIGNED:
            return 0
        self._scratch[: len(part)] = part
        with memoryview(self._scratch) as scratch, scratch[: len(part)] as text:
            try:
                done = os.pwrite(self._past, text, to)
            except OSError as exc:
                # The file system refuses it, not the disk
                if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                done = 0
        if done % ALIGNED or not done:
            self.close()
        return done

    def close(self) -> None:
        """Give the second descriptor up; writing goes on through the cache."""
        if self._past is not None:
            os.close(self._past)
            self._past = None
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
