# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Free space of this host's file systems, flushing, and codes for what a file system refuses (``disk_full``...)."""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

_NEARLY_FULL = 4 * 2**20
"""Bytes. A program that filled the disk may have freed a little again before the space is measured."""

_MAKE_ROOM = "Free space there, remove images that nothing uses, or put the image store on a larger disk"
_DISK_FULL_TEXT = ("No space left on device", "Disk quota exceeded", "Disk full")


def flush(path: str) -> None:
    """Wait until a file, or a directory's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: str) -> int:
    """Bytes that can still be written to the file system of ``path``, which need not be there yet."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def check_space(path: str, needed: int, what: str) -> None:
    """Require ``needed`` free bytes on the file system of ``path``.

    :param what: what needs them, for the error's text.
    :raises GridError: ``disk_full``.
    """
    free = free_bytes(path)
    if free < needed:
        raise GridError(
            "disk_full",
            f"{what} needs {format_size(needed)}, and only {format_size(free)} are free in {path}",
            remedy=_MAKE_ROOM,
            needed=needed,
            free=free,
        )


@contextlib.contextmanager
def disk_errors(path: str) -> t.Iterator[None]:
    """Turn errors of the file system of ``path`` into a GridError: ``disk_full``, ``not_permitted`` or ``io_error``."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from exc
        if isinstance(exc, PermissionError):
            raise GridError(
                "not_permitted", f"{exc.strerror}: {exc.filename or path}", remedy="Run as root (become: true)"
            ) from exc
        raise GridError(
            "io_error",
            f"{exc.strerror or exc}: {exc.filename or path}",
            remedy="See that the file system works and is writable",
        ) from exc
    except GridError as exc:
        said = str(exc.details.get("stderr", ""))
        if exc.code != "disk_full" and (
            any(text in said for text in _DISK_FULL_TEXT) or ("rc" in exc.details and free_bytes(path) < _NEARLY_FULL)
        ):
            raise _full(path, tried=exc.tried) from exc
        raise


def _full(path: str, tried: str | None = None) -> GridError:
    return GridError(
        "disk_full",
        f"the file system of {path} ran full; nothing half-made was kept",
        tried=tried,
        remedy=f"{_MAKE_ROOM}; then run the same again",
        free=free_bytes(path),
    )
