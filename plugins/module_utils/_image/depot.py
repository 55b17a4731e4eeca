# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's image store: layers named by their digest, manifests that name them, and a place for what is not yet whole.

Layers are immutable. A file has its final name only when it is whole, verified and flushed to the disk; a manifest is written
after the layers that it names. Work goes on in ``.staging/<job>/`` under a lock that ends with the process, so that an
interrupted job leaves nothing but a directory there, which the next run resumes (``*.part``) or removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import json
import os
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image import header
from ansible_collections.virtuoso.grid.plugins.module_utils._image.reference import (
    Manifest,
    layer_digest,
    layer_file,
    manifest_file,
    parse_manifest,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.tool import flush
from ansible_collections.virtuoso.grid.plugins.module_utils._image.tree import remove_tree
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

GROUP = "virtuoso"
PART = ".part"
"""How the name of a file ends that a later run goes on with."""

KEEP_PARTS = 7 * 24 * 3600.0
JOB_TIMEOUT = 4 * 3600.0
_BLOCK = 2**20


def content_digest(path: str, told: t.Callable[[int], None] | None = None) -> str:
    """The digest of a layer: SHA-256 of its file's bytes.

    :param told: called with the bytes read so far.
    """
    digest = hashlib.sha256()
    done = 0
    with open(path, "rb", buffering=0) as stream:
        while True:
            block = stream.read(_BLOCK)
            if not block:
                return "sha256:" + digest.hexdigest()
            digest.update(block)
            done += len(block)
            if told is not None:
                told(done)


class Depot:
    """The store under ``path`` (the option of that name); reading works before anything is there."""

    def __init__(self, path: str) -> None:
        self.machines = os.path.join(path, "machines")
        self.images = os.path.join(path, "images")
        self.layers = os.path.join(self.images, "layers")
        self.manifests = os.path.join(self.images, "manifests")
        self.staging = os.path.join(self.images, ".staging")

    # -- reading

    def layer_path(self, digest: str) -> str:
        """Where the layer is, or would be."""
        return os.path.join(self.layers, layer_file(digest))

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the layer is there, with ``size`` bytes if that is known."""
        try:
            found = os.stat(self.layer_path(digest)).st_size
        except FileNotFoundError:
            return False
        return size is None or found == size

    def read_manifests(self) -> tuple[list[Manifest], list[str]]:
        """All manifests in alphabetical order, and a warning for each file that is none."""
        manifests, warnings = [], []
        for file in _names(self.manifests):
            if not file.endswith(".json"):
                continue
            try:
                manifests.append(self._read_manifest(file))
            except (OSError, GridError) as exc:
                warnings.append(str(exc))
        return manifests, warnings

    def manifest(self, name: str, version: str) -> Manifest | None:
        """One manifest, ``None`` where there is none. :raises GridError: ``invalid_manifest``."""
        try:
            return self._read_manifest(manifest_file(name, version))
        except FileNotFoundError:
            return None

    def _read_manifest(self, file: str) -> Manifest:
        with open(os.path.join(self.manifests, file), "rb") as stream:
            return parse_manifest(stream.read(2**20 + 1), file)

    def complete(self, manifest: Manifest) -> bool:
        """Whether every layer that the manifest names is there, with the right size where there is but one."""
        sizes = [manifest["size"]] if len(manifest["layers"]) == 1 else [None] * len(manifest["layers"])
        return all(self.has(digest, size) for digest, size in zip(manifest["layers"], sizes))

    def read_layers(self) -> list[dict[str, t.Any]]:
        """Digest, size in bytes and path of every layer."""
        found = []
        for file in _names(self.layers):
            digest = layer_digest(file)
            if digest is not None:
                path = os.path.join(self.layers, file)
                found.append({"digest": digest, "size": os.stat(path).st_size, "path": path})
        return found

    def layers_of_machines(self) -> set[str]:
        """Digests of layers that disks of machines on this host are made of."""
        used = set()
        for machine in _names(self.machines):
            directory = os.path.join(self.machines, machine)
            for file in _names(directory):
                digest = _backing_layer(os.path.join(directory, file)) if file.endswith(".qcow2") else None
                if digest is not None:
                    used.add(digest)
        return used

    # -- writing

    def prepare(self) -> None:
        """Make the directories that are not there."""
        for path in (self.images, self.layers, self.manifests, self.staging):
            if not os.path.isdir(path):
                os.makedirs(path, mode=0o755, exist_ok=True)
                _share(path, 0o2750)

    @contextlib.contextmanager
    def job(self, key: str) -> t.Iterator[str]:
        """A directory for one piece of work, locked: a second process with the same key waits, then finds what the first made.

        When the work ends, well or not, all in it is removed but what a later run resumes (names that end in ``.part``).
        """
        with _lock(os.path.join(self.staging, key + ".lock"), f"the job {key} of another run"):
            directory = os.path.join(self.staging, key)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            _clear(directory)
            try:
                yield directory
            finally:
                _clear(directory)
                with contextlib.suppress(OSError):
                    os.rmdir(directory)

    def sweep(self) -> list[str]:
        """Remove what ended processes left in ``.staging``, parts only when old; the removed jobs' keys are returned."""
        swept = []
        for name in _names(self.staging):
            directory = os.path.join(self.staging, name)
            if not os.path.isdir(directory):
                continue
            with contextlib.suppress(GridError), _lock(directory + ".lock", name, timeout=0):
                if _clear(directory, parts_before=time.time() - KEEP_PARTS):
                    swept.append(name)
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        return swept

    def commit(self, manifest: Manifest, files: t.Mapping[str, str]) -> None:
        """Give verified layers their final name, then write the manifest.

        :param files: path in ``.staging`` of each layer that is not there yet, by digest; they are moved.
        """
        for path in files.values():
            _share(path, 0o640)
            flush(path)
        with _lock(os.path.join(self.images, ".lock"), "the image store"):
            for digest, path in files.items():
                os.replace(path, self.layer_path(digest))
            flush(self.layers)
            self._write_manifest(manifest)

    def _write_manifest(self, manifest: Manifest) -> None:
        target = os.path.join(self.manifests, manifest_file(manifest["name"], manifest["version"]))
        temporary = os.path.join(self.staging, f"{os.path.basename(target)}.{os.getpid()}.new")
        with open(temporary, "w", encoding="ascii") as stream:
            json.dump(manifest, stream, indent=2, sort_keys=True)
            stream.write("\n")
        _share(temporary, 0o640)
        flush(temporary)
        os.replace(temporary, target)
        flush(self.manifests)

    def remove(self, manifest: Manifest) -> list[str]:
        """Remove a manifest, and those of its layers that no other manifest and no machine's disk here needs.

        :returns: the digests of the removed layers.
        """
        with _lock(os.path.join(self.images, ".lock"), "the image store"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.manifests, manifest_file(manifest["name"], manifest["version"])))
            others, dummy = self.read_manifests()
            needed = {digest for other in others for digest in other["layers"]} | self.layers_of_machines()
            removed = [digest for digest in manifest["layers"] if digest not in needed]
            for digest in removed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.layer_path(digest))
            flush(self.manifests)
        return removed


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _backing_layer(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            backing = header.parse(stream.read(header.HEAD_SIZE)).backing_file
    except (OSError, GridError):
        return None
    return layer_digest(os.path.basename(backing)) if backing else None


def _share(path: str, mode: int) -> None:
    """Let the group that may read images have the file, where there is such a group."""
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    os.chmod(path, mode)


def _clear(directory: str, parts_before: float | None = None) -> bool:
    """Remove what is in a job's directory, but parts.

    :param parts_before: remove parts that are older than this time, too (seconds since 1970).
    :returns: whether something was removed.
    """
    removed = False
    for name in _names(directory):
        path = os.path.join(directory, name)
        if name.endswith(PART) and (parts_before is None or os.lstat(path).st_mtime >= parts_before):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            os.unlink(path)
        removed = True
    return removed


@contextlib.contextmanager
def _lock(path: str, what: str, timeout: float = JOB_TIMEOUT) -> t.Iterator[None]:
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
