# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's disk becomes the next version of an image: decide, then do. What a machine is, the caller knows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
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
    recipe_digest,
    reference,
    version_of,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, check_path, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

Result = t.Dict[str, t.Any]


class Wanted(t.NamedTuple):
    """An image as it should be captured. Without ``version`` its content decides which one it is."""

    name: str
    version: str | None
    machine: str
    user: str | None
    python: str | None


class Reading(t.NamedTuple):
    """An open disk, its runs, its size in bytes, and whether the runs are all of it or only what an overlay gives
    itself."""

    descriptor: int
    runs: t.Iterable[Run]
    size: int
    whole: bool


@dataclasses.dataclass
class Source:
    """A machine's disk, as it is at one moment.

    ``below`` is the digest of the layer that it lies on; ``user`` and ``python`` are what the machine has;
    ``consistent`` says how good the moment is: ``stopped``, ``filesystems`` (frozen by the guest's agent) or ``crash``
    (as after a loss of power).
    """

    machine: str
    below: str
    user: t.Optional[str]
    python: t.Optional[str]
    consistent: str

    def open(self, work: str | None) -> t.ContextManager[Reading | None]:
        """The disk for reading. Without ``work``, a directory for files, ``None`` where it can't be read without
        leaving traces."""
        raise NotImplementedError

    def settle(self) -> None:
        """:raises GridError: ``image_changed`` where what was read was not one moment."""


_FIELDS = ("name", "version", "machine", "user", "python")


def check_fields(entry: t.Mapping[str, t.Any], allowed: t.Sequence[str], needed: t.Sequence[str]) -> None:
    """:raises GridError: ``invalid_image`` for an entry with fields that are not ``allowed``, or without those
    ``needed``."""
    wrong = [key for key in entry if key not in allowed and entry[key] is not None] + [
        key for key in needed if entry.get(key) is None
    ]
    if wrong:
        raise GridError(
            "invalid_image",
            f"{shorten(wrong[0])} is {'missing' if wrong[0] in needed else 'no field here'}",
            remedy=f"An entry has {', '.join(allowed)}; needed are {', '.join(needed)}",
        )


def parse_capture(entry: t.Mapping[str, t.Any]) -> Wanted:
    """Read one entry. :raises GridError: ``invalid_image``, ``invalid_name``, ``invalid_version``..."""
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
    """The recipe's digest of what is captured of a machine: a version that is there is the machine's if it has this
    one."""
    return recipe_digest({"type": "capture", "machine": machine})


def decide(
    wanted: Wanted, machine: str, manifests: t.Sequence[Manifest], digest: str | None, there: bool
) -> tuple[list[str], Manifest | None]:
    """What is to be done (pure).

    :param manifests: all that the store has.
    :param digest: of the layer that the disk would become, ``None`` while unknown.
    :param there: whether that layer is in the store.
    :returns: nothing; ``capture``; ``name`` where only the manifest is missing; ``describe`` where user or interpreter
        differ. Beside it the manifest that is there.
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
        differs = any(
            value is not None and found[key] != value
            for key, value in (("user", wanted.user), ("python", wanted.python))
        )
        return (["describe"] if differs else []), found
    return (["name"] if digest is not None and there else ["capture"]), None


def known(wanted: Wanted, machine: str, depot: Depot) -> bool:
    """Whether the version that is asked for is there already, captured from this machine: then nothing need be read."""
    found = None if wanted.version is None else depot.manifest(wanted.name, wanted.version)
    return found is not None and found["recipe_digest"] == capture_recipe(machine) and depot.complete(found)


def ensure_captured(depot: Depot, wanted: Wanted, source: Source, progress: Progress, check_mode: bool) -> Result:
    """Have the disk as an image; the result of one entry, with ``diff``.

    :raises GridError: ``version_taken``, ``layer_missing``, ``too_many_layers``, and what the source raises.
    """
    if known(wanted, source.machine, depot):
        found = t.cast(Manifest, depot.manifest(wanted.name, t.cast(str, wanted.version)))
        actions, dummy = decide(wanted, source.machine, [found], None, False)
        return _finish(depot, wanted, source, actions, found, check_mode)
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


def _named(wanted: Wanted, source: Source, digest: str) -> Manifest:
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
    """The entry's result. ``manifest`` is what is there or would be, ``None`` where that can't be known beforehand."""
    before = None if manifest is None or actions in (["capture"], ["name"]) else shown(manifest)
    after = {
        **(manifest or {}),
        **{key: value for key, value in (("user", wanted.user), ("python", wanted.python)) if value},
    }
    if list(actions) == ["describe"] and not check_mode:
        with disk_errors(depot.images):
            depot.commit(after, {})
    version = after.get("version") or wanted.version
    name = f"image {reference(wanted.name, version or '?')}"
    digest = after["layers"][-1] if manifest else None
    return {
        "reference": reference(wanted.name, version) if version else None,
        "version": version,
        "digest": digest,
        "layers": after.get("layers"),
        "path": depot.layer_path(digest) if digest else None,
        "virtual_size": after.get("virtual_size"),
        "size": after.get("size") or None,
        **{key: after.get(key) or getattr(source, key) for key in ("user", "python")},
        "recipe_digest": after.get("recipe_digest") or capture_recipe(source.machine),
        "machine": source.machine,
        "consistent": source.consistent if list(actions) in (["capture"], ["name"]) else None,
        "changed": bool(actions),
        "actions": list(actions),
        "diff": diff(name, before, shown(after) if manifest else {"machine": source.machine}) if actions else None,
    }


def require_chain(depot: Depot, digest: str) -> dict[str, Index]:
    """The chain of indexes below a layer, every file of which is there. :raises GridError: ``layer_missing``."""
    chain = depot.chain(digest)
    for each in chain:
        if not depot.has(each):
            raise missing(each)
    return chain
