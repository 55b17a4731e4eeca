# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's image store: layers named by digest, manifests that name chains of layers, and a staging area.

A layer is a qcow2 file and an index in the same directory; the qcow2 file's backing file is the layer below. Layers are
immutable. A file gets its final name only when it is whole, verified and flushed to the disk; a manifest is written
after the layers that it names. Work is done in ``.staging/<job>/`` under a lock that ends with the process. An
interrupted job leaves only a directory there; the next run resumes its files named ``*.part`` and removes the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import grp
import hashlib
import json
import os
import re
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import flush
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._files import clear
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import header
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import Index, decode
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.lock import hold
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import (
    MAX_LAYERS,
    Manifest,
    boot_file,
    index_file,
    layer_digest,
    layer_file,
    manifest_file,
    parse_manifest,
    reference,
)

GROUP = "virtuoso"
PART = ".part"
"""The ending of files that a later run continues."""

KEEP_PARTS = 7 * 24 * 3600.0
"""Seconds after which such a file is removed."""
_BLOCK = 2**20
_ENDING = re.compile(r"\.(index|boot)\Z", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Made:
    """A verified layer in ``.staging``: the path of its file, and its encoded index."""

    path: str
    index: bytes


class StoredLayer(t.TypedDict):
    """A layer of the store: its digest, the bytes of its file, the file's path."""

    digest: str
    size: int
    path: str


def file_digest(path: str) -> str:
    """SHA-256 of a file's bytes, as ``sha256:`` and hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while True:
            block = stream.read(_BLOCK)
            if not block:
                return "sha256:" + digest.hexdigest()
            digest.update(block)


class Depot:
    """The store in the directory ``path`` (the modules' option). Reading works before anything is there."""

    def __init__(self, path: str) -> None:
        self.machines = os.path.join(path, "machines")
        self.images = os.path.join(path, "images")
        self.layers = os.path.join(self.images, "layers")
        self.manifests = os.path.join(self.images, "manifests")
        self.staging = os.path.join(self.images, ".staging")

    # -- reading

    def layer_path(self, digest: str) -> str:
        """The path that the layer's file has, or would have."""
        return os.path.join(self.layers, layer_file(digest))

    def index_path(self, digest: str) -> str:
        """The path that the layer's index has, or would have."""
        return os.path.join(self.layers, index_file(digest))

    def boot_path(self, digest: str) -> str:
        """The path that the layer's boot record has, or would have."""
        return os.path.join(self.layers, boot_file(digest))

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the layer is there. The layers below it are not checked.

        :param size: bytes that its file must have, where known.
        """
        try:
            found = os.stat(self.layer_path(digest)).st_size
        except FileNotFoundError:
            return False
        return (size is None or found == size) and os.path.exists(self.index_path(digest))

    def index(self, digest: str) -> Index:
        """The index of a layer. :raises GridError: ``layer_missing``, ``layer_corrupted``."""
        try:
            with open(self.index_path(digest), "rb") as stream:
                return decode(stream.read(), digest)
        except FileNotFoundError as exc:
            raise missing(digest) from exc

    def chain(self, digest: str) -> dict[str, Index]:
        """The indexes of a layer and of those below it, by digest, the lowest first.

        Indexes name each other by digest, so there can't be a loop.

        :raises GridError: ``layer_missing``, ``layer_corrupted``.
        """
        found: dict[str, Index] = {}
        below: str | None = digest
        while below is not None:
            if len(found) == MAX_LAYERS:
                raise GridError(
                    "layer_corrupted",
                    f"{digest} has more than {MAX_LAYERS} layers",
                    remedy="Flatten the image: state flattened",
                )
            found[below] = self.index(below)
            below = found[below].parent
        return dict(reversed(list(found.items())))

    def read_manifests(self) -> tuple[list[Manifest], list[str]]:
        """All manifests in alphabetical order, and a warning for each file that can't be read as one."""
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
        """The manifest of a version, or ``None``. :raises GridError: ``invalid_manifest``."""
        try:
            return self._read_manifest(manifest_file(name, version))
        except FileNotFoundError:
            return None

    def _read_manifest(self, file: str) -> Manifest:
        with open(os.path.join(self.manifests, file), "rb") as stream:
            return parse_manifest(stream.read(2**20 + 1), file)

    def complete(self, manifest: Manifest) -> bool:
        """Whether all layers of the manifest are there; of a single layer the size is checked too."""
        layers = manifest["layers"]
        size = manifest["size"] if len(layers) == 1 else None
        return all(self.has(digest, size) for digest in layers)

    def read_layers(self) -> list[StoredLayer]:
        """All layers of the store."""
        found: list[StoredLayer] = []
        for file in _names(self.layers):
            digest = layer_digest(file)
            if digest is not None and self.has(digest):
                path = os.path.join(self.layers, file)
                found.append({"digest": digest, "size": os.stat(path).st_size, "path": path})
        return found

    def layers_of_machines(self) -> set[str]:
        """Digests of the layers that disks of this host's machines lie on, down to the lowest."""
        used: set[str] = set()
        for machine in _names(self.machines):
            directory = os.path.join(self.machines, machine)
            for file in _names(directory):
                digest = _backing_layer(os.path.join(directory, file)) if file.endswith(".qcow2") else None
                used |= self.and_below(digest)
        return used

    def and_below(self, digest: str | None) -> set[str]:
        """Digests of the layer and those below it, as far as their indexes are here."""
        found: set[str] = set()
        while digest is not None and digest not in found:
            found.add(digest)
            try:
                digest = self.index(digest).parent
            except GridError:
                break
        return found

    # -- writing

    def prepare(self) -> None:
        """Make the directories that are missing."""
        for path in (self.images, self.layers, self.manifests, self.staging):
            if not os.path.isdir(path):
                os.makedirs(path, mode=0o755, exist_ok=True)
                share(path, 0o2750)

    @contextlib.contextmanager
    def job(self, key: str) -> t.Iterator[str]:
        """A locked directory for one piece of work. A second process with the same key waits.

        When the work ends, well or not, everything in it is removed except files named ``*.part``, which a later run
        resumes.
        """
        with hold(os.path.join(self.staging, key + ".lock"), f"the job {key} of another run"):
            directory = os.path.join(self.staging, key)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            clear(directory, PART)
            try:
                yield directory
            finally:
                clear(directory, PART)
                with contextlib.suppress(OSError):
                    os.rmdir(directory)

    def sweep(self) -> list[str]:
        """Remove what ended processes left in ``.staging``, and old ``*.part`` files.

        :returns: keys of the jobs of which something was removed.
        """
        swept = []
        for name in _names(self.staging):
            directory = os.path.join(self.staging, name)
            if not os.path.isdir(directory):
                continue
            with contextlib.suppress(GridError), hold(directory + ".lock", name, timeout=0):
                if clear(directory, PART, time.time() - KEEP_PARTS):
                    swept.append(name)
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        return swept

    def locked(self) -> t.ContextManager[None]:
        """A lock: while it is held, no other process adds layers or manifests to the store or removes them."""
        return hold(os.path.join(self.images, ".lock"), "the image store")

    def commit(self, manifest: Manifest | None, files: t.Mapping[str, Made], new: bool = False) -> None:
        """Give verified layers their final names, then write the manifest.

        :param files: the new layers by digest, the lowest first; their files are moved.
        :param new: refuse a version that is there already with other layers.
        :raises GridError: ``layer_missing``; ``invalid_manifest`` where the manifest's layers are not a chain;
            ``version_taken``.
        """
        for made in files.values():
            with open(made.path + ".index", "wb") as stream:
                stream.write(made.index)
            for path in (made.path, made.path + ".index"):
                share(path, 0o640)
                flush(path)
        with self.locked():
            if manifest is not None and new:
                found = self.manifest(manifest["name"], manifest["version"])
                if found is not None and found["layers"] != manifest["layers"]:
                    raise taken(found)
            for digest, made in files.items():
                parent = decode(made.index, digest).parent
                if parent is not None and not self.has(parent):
                    raise missing(parent)
                os.replace(made.path + ".index", self.index_path(digest))
                os.replace(made.path, self.layer_path(digest))
            flush(self.layers)
            if manifest is not None:
                self._require_chain(manifest)
                self._write_manifest(manifest)

    def _require_chain(self, manifest: Manifest) -> None:
        for digest in manifest["layers"]:
            if not self.has(digest):
                raise missing(digest)
        if list(self.chain(manifest["layers"][-1])) != manifest["layers"]:
            raise GridError(
                "invalid_manifest",
                f"the layers of {manifest['name']}@{manifest['version']} are not those that its topmost layer lies on",
                remedy="Remove the manifest where it came from, and make the image again",
            )

    def _write_manifest(self, manifest: Manifest) -> None:
        target = os.path.join(self.manifests, manifest_file(manifest["name"], manifest["version"]))
        temporary = os.path.join(self.staging, f"{os.path.basename(target)}.{os.getpid()}.new")
        with open(temporary, "w", encoding="ascii") as stream:
            json.dump(manifest, stream, indent=2, sort_keys=True)
            stream.write("\n")
        share(temporary, 0o640)
        flush(temporary)
        os.replace(temporary, target)
        flush(self.manifests)

    def remove(self, manifest: Manifest) -> list[str]:
        """Remove a manifest, and its layers that neither another manifest nor a machine's disk here needs.

        :returns: the digests of the removed layers.
        """
        with self.locked():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.manifests, manifest_file(manifest["name"], manifest["version"])))
            flush(self.manifests)
            needed = self.needed()
            return self._unlink([digest for digest in reversed(manifest["layers"]) if digest not in needed])

    def needed(self, elsewhere: t.Iterable[str] = ()) -> set[str]:
        """Digests of the layers in use by manifests, by machines' disks here and ``elsewhere``, with those below
        them."""
        named = {digest for manifest in self.read_manifests()[0] for digest in manifest["layers"]}
        found = self.layers_of_machines()
        for digest in (*named, *elsewhere):
            found |= self.and_below(digest) if digest.startswith("sha256:") else set()
        return found

    def unneeded(self, elsewhere: t.Iterable[str] = ()) -> list[str]:
        """Digests of the layers that nothing needs, and names of files in their directory that belong to no layer.

        :param elsewhere: digests that other hosts use.
        """
        needed = self.needed(elsewhere)
        wanted = {name for digest in needed for name in (layer_file(digest), index_file(digest), boot_file(digest))}
        files = [file for file in _names(self.layers) if file not in wanted]
        return list(dict.fromkeys(layer_digest(_ENDING.sub(".qcow2", file)) or file for file in files))

    def prunable(self, elsewhere: t.Iterable[str] = ()) -> list[str]:
        """What of :meth:`unneeded` can be removed now. A layer that is being sent stays until the next time, with all
        layers below it."""
        read = {digest for digest in self.unneeded(elsewhere) if self.being_sent(digest)}
        return [digest for digest in self.unneeded({*elsewhere, *read}) if digest not in read]

    def prune(self, elsewhere: t.Iterable[str] = ()) -> list[str]:
        """Remove what :meth:`prunable` lists, and return it."""
        with self.locked():
            return self._unlink(self.prunable(elsewhere))

    def files_of(self, digest: str) -> list[str]:
        """The paths of a layer's files.

        :param digest: of a layer, or the name of another file in the layers' directory.
        """
        known = digest.startswith("sha256:")
        return (
            [self.layer_path(digest), self.index_path(digest), self.boot_path(digest)]
            if known
            else [os.path.join(self.layers, digest)]
        )

    def being_sent(self, digest: str) -> bool:
        """Whether the layer is being sent to another host."""
        return any(map(_being_read, self.files_of(digest)))

    def _unlink(self, digests: t.Sequence[str]) -> list[str]:
        """Remove layers, and other files by name, except those that are being sent; the removed ones are returned."""
        removed = []
        for digest in digests:
            if self.being_sent(digest):
                continue
            for path in self.files_of(digest):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            removed.append(digest)
        if removed:
            flush(self.layers)
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


def missing(digest: str) -> GridError:
    """The error for a layer that should be there."""
    return GridError(
        "layer_missing",
        f"the layer {digest} is not here",
        remedy="Get the image again: virtuoso.grid.image_transfer, or the module image where it is made",
        digest=digest,
    )


def taken(found: Manifest) -> GridError:
    """The error for a version that exists already, made from something else."""
    return GridError(
        "version_taken",
        f"{reference(found['name'], found['version'])} is there, made from something else",
        remedy="Images don't change: give another version, or leave the version out to have one made from the content",
        recipe_digest=found["recipe_digest"],
    )


def _being_read(path: str) -> bool:
    """Whether a sender holds its lock on the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def share(path: str, mode: int) -> None:
    """Set a file's mode, and give it to the group that may read images, where that group exists."""
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    os.chmod(path, mode)
