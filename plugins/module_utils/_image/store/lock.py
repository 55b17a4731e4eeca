# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File locks between processes; a lock ends with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

PATIENCE = 4 * 3600.0
"""Seconds to wait for a lock: what the longest work of another run may take."""


@contextlib.contextmanager
def hold(path: str, what: str, timeout: float = PATIENCE) -> t.Iterator[None]:
    """Hold an exclusive lock (flock) on a file, which is made and, afterwards, removed.

    :param what: what the lock protects, for the error's text.
    :param timeout: seconds to wait for another process.
    :raises GridError: ``timed_out``.
    """

    def take() -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file between our opening and our locking it
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        raise Pending("another process has it")

    descriptor = wait_for(
        take, timeout, what=f"the lock on {what}", interval=0.2, remedy="Wait until the other run has ended, or end it"
    )
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)
