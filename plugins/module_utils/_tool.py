# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How this room runs programs: they end with the module, within limits, and a full disk is told as such."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

# A program that filled the disk may have freed a little of it again before the space is looked at.
_NEARLY_FULL = 4 * 2**20
_MAKE_ROOM = "Free space there, remove images that nothing uses, or put the image store on a larger disk"
_DISK_FULL_TEXT = ("No space left on device", "Disk quota exceeded", "Disk full")

# setpriv(1): the program is killed when this process is; it must not go on writing behind the back of the next run.
BOUND_TO_US = ("setpriv", "--pdeathsig", "KILL", "--")
# unshare(1): mounts and processes of the program die with it, so that nothing is left to be unmounted.
CONTAINED = (*BOUND_TO_US, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--")


def tool(argv: t.Sequence[str], *, contained: bool = False, limits: t.Sequence[str] = (), **kwargs: t.Any) -> str:
    """``command`` whose program can't outlive this process.

    :param contained: give it mount and process namespaces of its own.
    :param limits: options of prlimit(1), for example ``--as=1073741824``, for programs that read hostile input.
    """
    prefix = [*(CONTAINED if contained else BOUND_TO_US), *(("prlimit", *limits, "--") if limits else ())]
    try:
        return command([*prefix, *argv], **kwargs)
    except GridError as exc:
        # People know the program, not what holds it
        exc.tried = shlex.join(argv)[:1000]
        exc.msg = exc.msg.replace(prefix[0], argv[0], 1)
        # setpriv, unshare and prlimit end with 127 where the program is not there
        if exc.details.get("rc") == 127 and f"failed to execute {argv[0]}:" in exc.details["stderr"]:
            raise GridError(
                "program_missing",
                f"the program {argv[0]} is not installed",
                tried=exc.tried,
                remedy=missing_remedy(argv[0]),
            ) from exc
        if exc.details.get("stderr", "").startswith("unshare: unshare failed"):
            raise GridError(
                "not_permitted",
                "this host does not let us make namespaces",
                tried=exc.tried,
                remedy="Run as root (become: true)",
            ) from exc
        raise


_PACKAGES = {
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "sfdisk": "fdisk",
    "mformat": "mtools",
    "mcopy": "mtools",
    "syslinux": "syslinux",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
    "ssh": "openssh-client",
}


def missing_remedy(program: str) -> str:
    """What to do where a program is not installed."""
    package = _PACKAGES.get(program, program)
    return f"Install the Debian package {package}, or run the playbook virtuoso.grid.setup on this host, which does"


def flush(path: str) -> None:
    """Return when a file, or a directory's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: str) -> int:
    """Bytes that may still be written to the file system that ``path`` lies on, or will when it is made."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def check_space(path: str, needed: int, what: str) -> None:
    """:raises GridError: ``disk_full`` where ``path``'s file system has fewer than ``needed`` bytes left."""
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
    """Give what the file system of ``path`` refuses a code: ``disk_full``, ``not_permitted`` or ``io_error``."""
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
