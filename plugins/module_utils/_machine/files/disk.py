# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's files on a provider: its disk, which is an overlay, and its seed.

They are written atomically, by one run at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import header
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import (
    MAX_LAYERS,
    layer_digest,
    layer_file,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import Disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.disk_base import backing_words
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Space

# Everybody may pass, so that QEMU reaches its files; only root may list.
_DIRECTORY_MODE = 0o711
_FILE_MODE = 0o600
# qcow2 header, version 2 and later: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
# QEMU writes the name of a backing file right behind the header.
_HEAD_SIZE = 2**16


class Chain(t.NamedTuple):
    """The files of a chain of layers, the topmost first, and the digest of the first layer that isn't here."""

    paths: list[str]
    missing: str | None


class Depot:
    """The paths of a depot that machines use; ``docs/machines.md`` describes the depot."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.machines = os.path.join(self.path, "machines")
        self.staging = os.path.join(self.machines, ".staging")

    def layer(self, digest: str) -> str:
        """The file of the layer with this digest (``sha256:...``)."""
        return os.path.join(self.path, "images", "layers", layer_file(digest))

    def chain(self, digest: str | None) -> Chain:
        """The layer with this digest and those below it; an empty chain without a digest.

        :raises GridError: ``disk_invalid`` for a layer that is no qcow2 file or isn't on a layer.
        """
        paths: list[str] = []
        while digest is not None:
            path = self.layer(digest)
            file = read_qcow2(path)
            if file is None:
                return Chain(paths, digest)
            paths.append(path)
            digest = layer_of(file)
            if len(paths) > MAX_LAYERS or (digest is None and file.backing is not None):
                raise GridError(
                    "disk_invalid",
                    f"{path} is not an overlay on a layer",
                    remedy="Remove the image and get it again: virtuoso.grid.image_transfer",
                )
        return Chain(paths, None)

    def machine(self, uuid: str) -> str:
        """The directory of a machine."""
        return os.path.join(self.machines, uuid)

    def disk(self, uuid: str) -> str:
        """The disk of a machine."""
        return os.path.join(self.machines, uuid, "disk.qcow2")

    def paging_disks(self, uuid: str) -> list[str]:
        """The paths that a machine's disk may have while it pages from an export; the first is that of a new one."""
        return [os.path.join(self.machines, uuid, f"disk.{word}.qcow2") for word in ("paging", "paging2")]

    def found_disk(self, uuid: str, configured: str | None) -> str:
        """The disk of a machine: the file that its domain names, or, where a run was killed while it renamed that or
        there is no domain, the file that exists.

        :param configured: the path in the domain, ``None`` without a domain.
        """
        if configured is not None and configured not in self.paging_disks(uuid):
            return configured
        for path in (*([configured] if configured else []), self.disk(uuid), *self.paging_disks(uuid)):
            if os.path.exists(path):
                return path
        return configured or self.disk(uuid)

    def incoming(self, uuid: str) -> str:
        """The note that the machine's files are arriving here and don't count yet."""
        return os.path.join(self.machines, uuid, "incoming.json")

    def seed(self, uuid: str) -> str:
        """The NoCloud seed of a machine."""
        return os.path.join(self.machines, uuid, "seed.iso")

    def space(self) -> Space:
        """The space of the depot's file system."""
        system = os.statvfs(self.path)
        allocated = 0
        for path in glob.glob(os.path.join(glob.escape(self.machines), "*", "disk*.qcow2")):
            with contextlib.suppress(GridError, OSError):
                file = read_qcow2(path)
                allocated += file.size if file else 0
        return {
            "disk": system.f_blocks * system.f_frsize,
            "disk_free": system.f_bavail * system.f_frsize,
            "disk_allocated": allocated,
        }

    def require(self) -> None:
        """Refuse to work without the depot. :raises GridError: ``depot_missing``."""
        if not os.path.isdir(self.path):
            raise GridError(
                "depot_missing",
                f"the directory {self.path} is not there",
                remedy="Run the playbook virtuoso.grid.setup on this host, which makes it",
            )

    def prepare(self) -> None:
        """Make the directories that are missing in the depot."""
        for directory in (self.machines, self.staging):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, _DIRECTORY_MODE)
                os.chmod(directory, _DIRECTORY_MODE)


def read_qcow2(path: str) -> Disk | None:
    """The header of a qcow2 file, read without a program; ``None`` where there is no file.

    :raises GridError: ``disk_invalid`` for a file of another format.
    """
    try:
        with open(path, "rb") as file:
            found = header.parse(file.read(_HEAD_SIZE))
    except FileNotFoundError:
        return None
    except GridError as exc:
        raise GridError(
            "disk_invalid",
            f"{path} can't be used: {exc.msg}",
            remedy="Restore the file, or remove the machine or image that it belongs to",
        ) from exc
    return Disk(found.virtual_size, found.backing_file)


def require_qcow2(path: str) -> Disk:
    """The same for a file that must be there. :raises OSError: where it isn't."""
    file = read_qcow2(path)
    if file is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return file


def layer_of(disk: Disk | None) -> str | None:
    """The digest of the layer that a disk is an overlay on, ``None`` where it is on something else."""
    return layer_digest(os.path.basename(disk.backing)) if disk is not None and disk.backing else None


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: str, data: bytes) -> None:
    """Write a file and sync it to the medium. Not atomic by itself: for files in staging."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _FILE_MODE)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, _FILE_MODE)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class Overlays:
    """Makes overlays. Overlays on one layer and of one size are equal byte for byte, so qemu-img runs once for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str, int], bytes] = {}

    def write(self, path: str, layer: str, size: int) -> None:
        """Make an overlay of ``size`` bytes on the qcow2 file ``layer``, or on an export (``nbd://``), which isn't
        opened."""
        with self._lock:
            data = self._made.get((layer, size))
            if data is None:
                self._make(path, layer, size)
                with open(path, "rb") as file:
                    data = self._made[layer, size] = file.read()
        write_whole(path, data)

    @staticmethod
    def _make(path: str, layer: str, size: int) -> None:
        try:
            command(
                ["qemu-img", "create", "-q", "-f", "qcow2", *backing_words(layer), path, str(size)],
                timeout=120,
                code="disk_failed",
                remedy="See what qemu-img said; then run again",
            )
        except GridError as exc:
            if "No space left on device" in str(exc.details.get("stderr", "")):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from exc
            raise


@contextlib.contextmanager
def _staged(depot: Depot, uuid: str) -> t.Iterator[str]:
    """An empty directory to make the machine's files in. What is in it was left by a run that was killed, because the
    machine is locked."""
    directory = os.path.join(depot.staging, uuid)
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory, _DIRECTORY_MODE)
    os.chmod(directory, _DIRECTORY_MODE)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def create(depot: Depot, uuid: str, make_disk: t.Callable[[str], None], seed: bytes, name: str = "disk.qcow2") -> None:
    """Make the machine's directory with its disk and seed: both have their names afterwards, or neither."""

    def fill(staging: str) -> None:
        make_disk(os.path.join(staging, name))
        write_whole(os.path.join(staging, "seed.iso"), seed)

    make(depot, uuid, fill)


def make(depot: Depot, uuid: str, fill: t.Callable[[str], None]) -> None:
    """Make the machine's directory atomically: ``fill`` writes its files into the directory that it is given."""
    depot.prepare()
    with _staged(depot, uuid) as staging:
        fill(staging)
        _sync(staging)
        target = depot.machine(uuid)
        # Without a disk it has nothing that could be lost.
        shutil.rmtree(target, ignore_errors=True)
        os.rename(staging, target)
    _sync(depot.machines)


def replace_seed(depot: Depot, uuid: str, seed: bytes) -> None:
    """Replace the seed, atomically."""
    depot.prepare()
    with _staged(depot, uuid) as staging:
        path = os.path.join(staging, "seed.iso")
        write_whole(path, seed)
        os.rename(path, depot.seed(uuid))
    _sync(depot.machine(uuid))


def replace_disk(depot: Depot, uuid: str, path: str, make_disk: t.Callable[[str], None]) -> None:
    """Replace the disk, atomically. Nobody may have the old one open."""
    depot.prepare()
    with _staged(depot, uuid) as staging:
        new = os.path.join(staging, "disk.qcow2")
        make_disk(new)
        os.rename(new, path)
    _sync(os.path.dirname(path))


def remove(depot: Depot, uuid: str) -> None:
    """Remove all files of a machine."""
    for directory in (os.path.join(depot.staging, uuid), depot.machine(uuid)):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)


def grow_file(path: str, size: int) -> None:
    """Grow the disk of a machine that doesn't run."""
    command(
        ["qemu-img", "resize", "-q", "-f", "qcow2", path, str(size)],
        timeout=120,
        code="disk_failed",
        remedy="See what qemu-img said; then run again",
    )


def rebase(path: str, backing: str) -> None:
    """Change the disk of a machine that doesn't run to be an overlay on another file or export of the same content."""
    words = backing_words(backing)
    command(
        ["qemu-img", "rebase", "-q", "-f", "qcow2", *(words if "-u" in words else ["-u", *words]), path],
        timeout=120,
        code="disk_failed",
        remedy="See what qemu-img said; then run again",
    )


def rename(path: str, target: str) -> None:
    """Rename a disk in its directory."""
    os.rename(path, target)
    _sync(os.path.dirname(target))


class Locks:
    """One writer per machine, over processes: byte range locks on one file, which end with their process.

    Within a process, the caller makes sure that one thread works on a machine.
    """

    def __init__(self, depot: Depot) -> None:
        depot.prepare()
        path = os.path.join(depot.machines, ".lock")
        # Who may read a file may lock it: with shared locks nobody else would ever get it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)
        self._file = os.fdopen(descriptor, "r+b")

    def close(self) -> None:
        """Release all locks."""
        self._file.close()

    @contextlib.contextmanager
    def of(self, uuid: str, timeout: float) -> t.Iterator[None]:
        """Hold the machine's lock while the body runs.

        :raises GridError: ``machine_busy`` after ``timeout`` seconds.
        """
        place = int(uuid.replace("-", "")[:15], 16)
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= end:
                    raise GridError(
                        "machine_busy", "another run is working on this machine", remedy="Run again when it has ended"
                    ) from None
                time.sleep(0.1)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
