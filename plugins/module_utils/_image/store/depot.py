# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's image store: layers named by their digest, manifests that name chains of them, and a place for what is not
yet whole.

A layer is a qcow2 file and its index, in the same directory; the file names the layer below as its backing file. Layers
are immutable. A file has its final name only when it is whole, verified and flushed to the disk; a manifest is written
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
import re
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
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
from ansible_collections.virtuoso.grid.plugins.module_utils._removal import clear
from ansible_collections.virtuoso.grid.plugins.module_utils._tool import flush

GROUP = "virtuoso"
PART = ".part"
"""How the name of a file ends that a later run goes on with."""

KEEP_PARTS = 7 * 24 * 3600.0
_BLOCK = 2**20
_ENDING = re.compile(r"\.(index|boot)\Z", re.ASCII)


class Made(t.NamedTuple):
    """A verified layer in ``.staging``: the path of its file, and its encoded index."""

    path: str
    index: bytes


def file_digest(path: str) -> str:
    """SHA-256 of a file's bytes, as publishers tell it."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while True:
            block = stream.read(_BLOCK)
            if not block:
                return "sha256:" + digest.hexdigest()
            digest.update(block)


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

    def index_path(self, digest: str) -> str:
        """Where its index is, or would be."""
        return os.path.join(self.layers, index_file(digest))

    def boot_path(self, digest: str) -> str:
        """Where the record of what a boot reads is, or would be."""
        return os.path.join(self.layers, boot_file(digest))

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the layer is there, its file with ``size`` bytes if that is known. The layers below it are not looked
        at."""
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
        """A layer and those below it, the lowest first. Indexes name each other by digest, so there can't be a loop.

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
            if digest is not None and self.has(digest):
                path = os.path.join(self.layers, file)
                found.append({"digest": digest, "size": os.stat(path).st_size, "path": path})
        return found

    def layers_of_machines(self) -> set[str]:
        """Digests of layers that disks of machines on this host are made of, down to the lowest."""
        used: set[str] = set()
        for machine in _names(self.machines):
            directory = os.path.join(self.machines, machine)
            for file in _names(directory):
                digest = _backing_layer(os.path.join(directory, file)) if file.endswith(".qcow2") else None
                used |= self.and_below(digest)
        return used

    def and_below(self, digest: str | None) -> set[str]:
        """The layer and those below it, as far as they are known."""
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
        """Make the directories that are not there."""
        for path in (self.images, self.layers, self.manifests, self.staging):
            if not os.path.isdir(path):
                os.makedirs(path, mode=0o755, exist_ok=True)
                share(path, 0o2750)

    @contextlib.contextmanager
    def job(self, key: str) -> t.Iterator[str]:
        """A directory for one piece of work, locked: a second process with the same key waits, then finds what the
        first made.

        When the work ends, well or not, all in it is removed but what a later run resumes (names that end in
        ``.part``).
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
        """Remove what ended processes left in ``.staging``, parts only when old; the removed jobs' keys are returned."""
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
        """While it is held, nothing gets a name here and nothing is removed by others."""
        return hold(os.path.join(self.images, ".lock"), "the image store")

    def commit(self, manifest: Manifest | None, files: t.Mapping[str, Made], new: bool = False) -> None:
        """Give verified layers their final names, the lowest first, then write the manifest.

        :param files: each layer that is not there yet, by digest; the files are moved.
        :param new: the manifest's version must not be there yet with other layers.
        :raises GridError: ``layer_missing``, ``invalid_manifest`` where the manifest's layers are not a chain that is
            there, ``version_taken``.
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
        """Remove a manifest, and those of its layers that no other manifest and no machine's disk here needs.

        :returns: the digests of the removed layers.
        """
        with self.locked():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.manifests, manifest_file(manifest["name"], manifest["version"])))
            flush(self.manifests)
            needed = self.needed()
            return self._unlink([digest for digest in reversed(manifest["layers"]) if digest not in needed])

    def needed(self, elsewhere: t.Iterable[str] = ()) -> set[str]:
        """Digests of the layers that a manifest, a machine's disk here, or somebody elsewhere needs, with those below
        them."""
        named = {digest for manifest in self.read_manifests()[0] for digest in manifest["layers"]}
        found = self.layers_of_machines()
        for digest in (*named, *elsewhere):
            found |= self.and_below(digest) if digest.startswith("sha256:") else set()
        return found

    def unneeded(self, elsewhere: t.Iterable[str] = ()) -> list[str]:
        """Digests of the layers that nothing needs, and names of files among the layers that belong to none."""
        needed = self.needed(elsewhere)
        wanted = {name for digest in needed for name in (layer_file(digest), index_file(digest), boot_file(digest))}
        files = [file for file in _names(self.layers) if file not in wanted]
        return list(dict.fromkeys(layer_digest(_ENDING.sub(".qcow2", file)) or file for file in files))

    def prunable(self, elsewhere: t.Iterable[str] = ()) -> list[str]:
        """What of :meth:`unneeded` can go now: what somebody is just reading stays until the next time, with all below
        it."""
        read = {digest for digest in self.unneeded(elsewhere) if self.being_sent(digest)}
        return [digest for digest in self.unneeded({*elsewhere, *read}) if digest not in read]

    def prune(self, elsewhere: t.Iterable[str] = ()) -> list[str]:
        """Remove what :meth:`prunable` lists, and return it."""
        with self.locked():
            return self._unlink(self.prunable(elsewhere))

    def files_of(self, digest: str) -> list[str]:
        """The files of a layer; of a file that is no layer its own."""
        known = digest.startswith("sha256:")
        return (
            [self.layer_path(digest), self.index_path(digest), self.boot_path(digest)]
            if known
            else [os.path.join(self.layers, digest)]
        )

    def being_sent(self, digest: str) -> bool:
        """Whether somebody is just reading the layer to give it to another host."""
        return any(map(_being_read, self.files_of(digest)))

    def _unlink(self, digests: t.Sequence[str]) -> list[str]:
        """Remove layers that nobody reads; the removed ones are returned. A file that is no layer is given by its name."""
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
    """The error for a version that is there, made of something else."""
    return GridError(
        "version_taken",
        f"{reference(found['name'], found['version'])} is there, made from something else",
        remedy="Images don't change: give another version, or leave the version out to have one made from the content",
        recipe_digest=found["recipe_digest"],
    )


def _being_read(path: str) -> bool:
    """Whether somebody who gives the file to another host holds it."""
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
    """Let the group that may read images have the file, where there is such a group."""
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    os.chmod(path, mode)
