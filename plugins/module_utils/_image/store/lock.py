# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between processes that end with the process that holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

PATIENCE = 4 * 3600.0
"""Seconds that another run's longest work may take."""


@contextlib.contextmanager
def hold(path: str, what: str, timeout: float = PATIENCE) -> t.Iterator[None]:
    """Hold an exclusive lock (flock) on a file, which is removed afterwards.

    The lock ends with the process, however that ends. :raises GridError: ``timed_out``.
    """

    def take() -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before us may have removed the file between our opening and our locking it
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
