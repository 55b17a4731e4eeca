# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state ``captured`` of the module ``image``: a machine's disk becomes the next version of an image.

This room knows nothing of machines: the caller gives the disk as a :class:`Source`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.ensure import shown
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.add_layer import (
    make_layer,
    manifest_of,
    next_layer,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import Run, scan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot, Made, missing, taken
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import Index, digest_of, encode, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import (
    MAX_LAYERS,
    Manifest,
    Named,
    recipe_digest,
    reference,
    version_of,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, check_path, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress


class Wanted(t.NamedTuple):
    """An image to capture. Without ``version`` the version is made from its content."""

    name: str
    version: str | None
    machine: str
    user: str | None
    python: str | None


class Reading(t.NamedTuple):
    """An open disk, its runs, its size in bytes, and whether the runs are the whole disk or only what an overlay holds
    itself."""

    descriptor: int
    runs: t.Iterable[Run]
    size: int
    whole: bool


@dataclasses.dataclass
class Source:
    """A machine's disk at one moment.

    ``machine``: uuid of the machine. ``below``: digest of the layer that the disk lies on. ``user`` and ``python``:
    those of the machine. ``consistent``: how consistent the disk is: ``stopped``, ``filesystems`` (frozen by the
    guest's agent) or ``crash`` (as after a loss of power).
    """

    machine: str
    below: str
    user: t.Optional[str]
    python: t.Optional[str]
    consistent: str

    def open(self, work: str | None) -> t.ContextManager[Reading | None]:
        """Open the disk for reading.

        :param work: a directory for files, ``None`` in check mode.
        :returns: ``None`` where the disk can't be read without writing files, and there is no directory for them.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """Finish reading. :raises GridError: ``image_changed`` where the disk changed while it was read."""


_FIELDS = ("name", "version", "machine", "user", "python")


def check_fields(entry: t.Mapping[str, object], allowed: t.Sequence[str], needed: t.Sequence[str]) -> None:
    """Check the names of an entry's fields (pure).

    :raises GridError: ``invalid_image`` for a field that is not ``allowed``, or a ``needed`` one that is missing.
    """
    wrong = [key for key in entry if key not in allowed and entry[key] is not None] + [
        key for key in needed if entry.get(key) is None
    ]
    if wrong:
        raise GridError(
            "invalid_image",
            f"{shorten(wrong[0])} is {'missing' if wrong[0] in needed else 'no field here'}",
            remedy=f"An entry has {', '.join(allowed)}; needed are {', '.join(needed)}",
        )


def parse_capture(entry: t.Mapping[str, object]) -> Wanted:
    """Read one entry of the module's ``images``.

    :raises GridError: ``invalid_image``, ``invalid_name``, ``invalid_version``...
    """
    check_fields(entry, _FIELDS, ("name", "machine"))
    version, user, python = entry.get("version"), entry.get("user"), entry.get("python")
    return Wanted(
        name=check("name", entry["name"]),
        version=None if version is None else check("version", str(version)),
        machine=str(entry["machine"]),
        user=None if user is None else check("user", user),
        python=None if python is None else check_path("python", python),
    )


def capture_recipe(machine: str) -> str:
    """The recipe digest of versions that are captured from a machine."""
    return recipe_digest({"type": "capture", "machine": machine})


def decide(
    wanted: Wanted, machine: str, manifests: t.Sequence[Manifest], digest: str | None, there: bool
) -> tuple[list[str], Manifest | None]:
    """The action that capturing takes (pure).

    :param manifests: all manifests of the store.
    :param digest: of the layer that the disk would become, ``None`` while unknown.
    :param there: whether that layer is in the store.
    :returns: the actions: none; ``capture``; ``name`` where only the manifest is missing; ``describe`` where user or
        interpreter differ. And the manifest that is there already.
    :raises GridError: ``version_taken``.
    """
    own = [manifest for manifest in manifests if manifest["name"] == wanted.name]
    if wanted.version is not None:
        found = next((manifest for manifest in own if manifest["version"] == wanted.version), None)
        if found is not None and found["recipe_digest"] != capture_recipe(machine) and found["layers"][-1] != digest:
            raise taken(found)
    else:
        same = [manifest for manifest in own if manifest["layers"][-1] == digest]
        found = max(same, key=lambda manifest: str(manifest["created"]), default=None)
    if found is not None:
        return (["describe"] if _described(found, wanted) != found else []), found
    return (["name"] if digest is not None and there else ["capture"]), None


def _described(manifest: Manifest, wanted: Wanted) -> Manifest:
    """The manifest with the wanted user and interpreter, where they are given."""
    user = manifest["user"] if wanted.user is None else wanted.user
    python = manifest["python"] if wanted.python is None else wanted.python
    return {**manifest, "user": user, "python": python}


def find_captured(wanted: Wanted, machine: str, depot: Depot) -> Manifest | None:
    """The wanted version, if it is there already and was captured from this machine. Then nothing has to be read."""
    found = None if wanted.version is None else depot.manifest(wanted.name, wanted.version)
    if found is not None and found["recipe_digest"] == capture_recipe(machine) and depot.complete(found):
        return found
    return None


def ensure_captured(depot: Depot, wanted: Wanted, source: Source, progress: Progress, check_mode: bool) -> Result:
    """Capture the disk as an image; the entry's result, with ``diff``.

    :raises GridError: ``version_taken``, ``layer_missing``, ``too_many_layers``, and what the source raises.
    """
    known = find_captured(wanted, source.machine, depot)
    if known is not None:
        actions, dummy = decide(wanted, source.machine, [known], None, False)
        return _finish(depot, wanted, source, actions, known, check_mode)
    with contextlib.ExitStack() as stack:
        work = None
        if not check_mode:
            with disk_errors(depot.images):
                depot.prepare()
                work = stack.enter_context(depot.job(f"capture-{source.machine}"))
        stack.enter_context(disk_errors(depot.images))
        chain = require_chain(depot, source.below)
        with source.open(work) as reading:
            if reading is None:
                actions, found = decide(wanted, source.machine, _complete(depot), None, False)
                return _finish(depot, wanted, source, actions, found, check_mode)
            return _capture(depot, wanted, source, reading, chain, work, progress)


def _complete(depot: Depot) -> list[Manifest]:
    return [manifest for manifest in depot.read_manifests()[0] if depot.complete(manifest)]


def _capture(
    depot: Depot,
    wanted: Wanted,
    source: Source,
    reading: Reading,
    chain: t.Mapping[str, Index],
    work: str | None,
    progress: Progress,
) -> Result:
    content = scan(reading.descriptor, reading.runs, lambda done, total: progress.bytes("digest", done, total))
    below = list(chain.values())
    index = next_layer(content, reading.whole, below[-1], merge(below), reading.size, source.below)
    encoded = b"" if index is None else encode(index)
    digest = source.below if index is None else digest_of(encoded)
    actions, found = decide(wanted, source.machine, _complete(depot), digest, depot.has(digest))
    layers = list(chain) if index is None else [*chain, digest]
    if len(layers) > MAX_LAYERS:
        raise GridError(
            "too_many_layers",
            f"the chain would have {len(layers)} layers",
            remedy="Flatten the image, roll the machine back to that",
        )
    files: dict[str, Made] = {}
    if work is not None and index is not None and actions == ["capture"]:
        files[digest] = make_layer(reading.descriptor, content, index, work, progress)[1]
    source.settle()
    if found is None:
        sizes = (
            [os.stat(files[each].path if each in files else depot.layer_path(each)).st_size for each in layers]
            if work
            else []
        )
        named = _named(wanted, source, digest)
        found = manifest_of(named, layers, reading.size if index is None else index.virtual_size, sum(sizes))
        if work is not None:
            depot.commit(found, files, new=True)
            progress.stage("done")
    return _finish(depot, wanted, source, actions, found, work is None)


def _named(wanted: Wanted, source: Source, digest: str) -> Named:
    return {
        "name": wanted.name,
        "version": wanted.version or version_of(digest),
        "user": wanted.user or source.user,
        "python": wanted.python or source.python,
        "recipe_digest": capture_recipe(source.machine),
    }


def _finish(
    depot: Depot, wanted: Wanted, source: Source, actions: t.Sequence[str], manifest: Manifest | None, check_mode: bool
) -> Result:
    """The entry's result. ``manifest`` is what is there or would be; ``None`` where that can't be known beforehand."""
    before = None if manifest is None or actions in (["capture"], ["name"]) else shown(manifest)
    after = None if manifest is None else _described(manifest, wanted)
    if list(actions) == ["describe"] and not check_mode:
        with disk_errors(depot.images):
            depot.commit(after, {})
    version = after["version"] if after else wanted.version
    name = f"image {reference(wanted.name, version or '?')}"
    digest = after["layers"][-1] if after else None
    return {
        "reference": reference(wanted.name, version) if version else None,
        "version": version,
        "digest": digest,
        "layers": after["layers"] if after else None,
        "path": depot.layer_path(digest) if digest else None,
        "virtual_size": after["virtual_size"] if after else None,
        "size": after["size"] or None if after else None,
        "user": (after["user"] if after else wanted.user) or source.user,
        "python": (after["python"] if after else wanted.python) or source.python,
        "recipe_digest": after["recipe_digest"] if after else capture_recipe(source.machine),
        "machine": source.machine,
        "consistent": source.consistent if list(actions) in (["capture"], ["name"]) else None,
        "changed": bool(actions),
        "actions": list(actions),
        "diff": diff(name, before, shown(after) or {"machine": source.machine}) if actions else None,
    }


def require_chain(depot: Depot, digest: str) -> dict[str, Index]:
    """The indexes of a layer and of those below it, the lowest first. :raises GridError: ``layer_missing``."""
    chain = depot.chain(digest)
    for each in chain:
        if not depot.has(each):
            raise missing(each)
    return chain
