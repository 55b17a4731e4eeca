# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stopped machine goes back, or on, to a version of its image."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import Hypervisor, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.add_layer import next_layer
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import scan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot as Store
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import Blocks, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import Manifest, reference
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk, hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots.disk_source import (
    Found,
    Resting,
    layer_below,
)

Result = t.Dict[str, t.Any]
Image = t.Mapping[str, str]


def require_stopped(state: str) -> None:
    """:raises GridError: ``machine_running``."""
    if state not in ("stopped", "hibernated"):
        raise GridError(
            "machine_running", f"the machine is {state}", remedy="Stop it first: virtuoso.grid.power with state stopped"
        )


def _refuse_snapshots(count: int) -> None:
    """:raises GridError: ``has_snapshots``: they are in the disk that would be exchanged."""
    if count:
        raise GridError(
            "has_snapshots",
            f"the machine has {count} snapshots, which would be lost",
            remedy="Delete them first: virtuoso.grid.snapshot with state absent",
        )


def decide(chain: t.Sequence[str], layers: t.Sequence[str], now: Image, image: Image, fresh: bool) -> list[str]:
    """What is to be done to have a stopped machine on a version (pure).

    :param chain: the files that the domain names below the disk.
    :param layers: those of the version, both the nearest first.
    :param now: name and digest that the domain has of its image.
    :param image: those of the version.
    :param fresh: whether the disk lies on it and has nothing of its own.
    :returns: nothing; ``roll back``; or ``define`` where only the domain was not told yet.
    """
    if not fresh:
        return ["roll back"]
    return [] if list(chain) == list(layers) and dict(now) == dict(image) else ["define"]


def refuse_loss(content: Blocks | None, size: int, versions: t.Iterable[tuple[int, Blocks]], discard: bool) -> None:
    """Refuse to lose what no version has (pure).

    :param content: what a guest sees of the disk, ``None`` where that can't be told.
    :param versions: size and content of each.
    :raises GridError: ``unsaved_changes``.
    """
    if discard or (content is not None and any(there == content and held <= size for held, there in versions)):
        return
    raise GridError(
        "unsaved_changes",
        "the disk has changes that no version in the image store has",
        remedy="Capture the machine first: module image, state captured; or set discard to lose the changes",
    )


class Disk(t.NamedTuple):
    """What the disk has: blocks that a guest sees, and whether they are those of the layer below."""

    content: Blocks | None
    pristine: bool


def read_disk(store: Store, depot: disk.Depot, found: Found) -> Disk:
    """Read what a stopped machine's disk has itself."""
    path = domain_xml.read(found.tree)["disk_path"] or depot.disk(found.uuid)
    size = t.cast(disk.Disk, found.observed.disk).size
    try:
        below = layer_below(found)
        chain = list(store.chain(below).values())
    except GridError:
        return Disk(None, False)
    merged = merge(chain)
    source = Resting(found.uuid, below, None, None, "stopped", path, depot, found.domain)
    with source.open(None) as reading:
        if reading is None:
            return Disk(None, False)
        content = scan(reading.descriptor, reading.runs)
        index = next_layer(content, False, chain[-1], merged, size, below)
    if index is None or not index.blocks:
        return Disk(merged, True)
    return Disk(merge([*chain, index]), False)


def _versions(store: Store) -> t.Iterator[tuple[int, Blocks]]:
    for manifest in store.read_manifests()[0]:
        with contextlib.suppress(GridError):
            if store.complete(manifest):
                yield manifest["virtual_size"], merge(list(store.chain(manifest["layers"][-1]).values()))


def roll_back(
    hypervisor: Hypervisor,
    store: Store,
    depot: disk.Depot,
    found: Found,
    manifest: Manifest,
    discard: bool,
    check_mode: bool,
) -> Result:
    """Have a machine that is held on a version of the store; the result of one entry, with ``diff``.

    :raises GridError: ``machine_running``, ``unsaved_changes``, ``disk_failed``.
    """
    require_stopped(found.observed.state)
    _refuse_snapshots(found.domain.snapshotNum(0))
    digest = manifest["layers"][-1]
    image = {"name": reference(manifest["name"], manifest["version"]), "digest": digest}
    layers = depot.chain(digest).paths
    before = t.cast("dict[str, t.Any]", found.observed.metadata)["image"]
    own = t.cast(disk.Disk, found.observed.disk)
    there = read_disk(store, depot, found)
    fresh = there.pristine and disk.layer_of(own) == digest
    actions = decide(domain_xml.chain(found.tree), layers, before, image, fresh)
    size = max(manifest["virtual_size"], own.size)
    if actions == ["roll back"]:
        refuse_loss(there.content, size, _versions(store), discard or there.pristine)
        _refuse_saved(found, depot, discard)
    if actions and not check_mode:
        _do(hypervisor, depot, found, layers, image, size if actions == ["roll back"] else None)
    return {
        "machine": found.uuid,
        "version": manifest["version"],
        "reference": image["name"],
        **{"digest": digest, "layers": manifest["layers"], "disk": size, "previous": before},
        "changed": bool(actions),
        "actions": actions,
        "diff": diff(f"machine {found.domain.name()}", {"image": before}, {"image": image}) if actions else None,
    }


def _refuse_saved(found: Found, depot: disk.Depot, discard: bool) -> None:
    """A machine that was put to sleep would wake up with a memory that doesn't fit its disk."""
    if (found.domain.hasManagedSaveImage(0) or hibernate.present(depot, found.uuid)) and not discard:
        raise GridError(
            "unsaved_changes",
            "the machine's memory was saved, and would be lost",
            remedy="Start it and shut it down; or set discard to lose what it had in memory",
        )


def _do(
    hypervisor: Hypervisor,
    depot: disk.Depot,
    found: Found,
    layers: t.Sequence[str],
    image: t.Mapping[str, str],
    size: int | None,
) -> None:
    """Three steps, each whole, and the machine sees the right disk after each.

    While the disk is exchanged the domain names no chain, so that libvirt goes by what the disk's file says, be it the
    old one or the new one. A domain that names another chain than its disk's would show the guest a mixture.
    """
    tree, conn = found.tree, hypervisor.conn
    with translated("roll the machine back"):
        if size is not None:
            if found.domain.hasManagedSaveImage(0):
                found.domain.managedSaveRemove(0)
            hibernate.discard(depot, found.uuid)
            domain_xml.set_chain(tree, None)
            conn.defineXML(domain_xml.to_text(tree))
            path = domain_xml.read(tree)["disk_path"] or depot.disk(found.uuid)
            disk.replace_disk(depot, found.uuid, path, lambda new: disk.Overlays().write(new, layers[0], size))
        values = t.cast("dict[str, t.Any]", found.observed.metadata)
        domain_xml.set_chain(tree, layers)
        domain_xml.put_metadata(tree, {**values, "image": dict(image)})
        conn.defineXML(domain_xml.to_text(tree))
