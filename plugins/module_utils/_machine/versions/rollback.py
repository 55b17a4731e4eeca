# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolls a stopped machine back, or forward, to a version of its image."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import Hypervisor, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Image
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.add_layer import next_layer
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import scan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot as Store
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import Blocks, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import Manifest, reference
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import RollbackRow
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk, hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots.disk_source import (
    Found,
    Resting,
    layer_below,
)


def require_stopped(state: str) -> None:
    """Refuse a machine that runs. :raises GridError: ``machine_running``."""
    if state not in ("stopped", "hibernated"):
        raise GridError(
            "machine_running", f"the machine is {state}", remedy="Stop it first: virtuoso.grid.power with state stopped"
        )


def _refuse_snapshots(count: int) -> None:
    """Refuse to lose snapshots, which are in the disk that is replaced. :raises GridError: ``has_snapshots``."""
    if count:
        raise GridError(
            "has_snapshots",
            f"the machine has {count} snapshots, which would be lost",
            remedy="Delete them first: virtuoso.grid.snapshot with state absent",
        )


def decide(chain: t.Sequence[str], layers: t.Sequence[str], now: Image, image: Image, fresh: bool) -> list[str]:
    """The actions that bring a stopped machine to a version (pure).

    :param chain: the files that the domain names below the disk, the nearest first.
    :param layers: those of the version, the nearest first.
    :param now: the image in the machine's metadata.
    :param image: that of the version.
    :param fresh: whether the disk is on the version and has no content of its own.
    :returns: nothing; ``roll back``; or ``define`` where only the domain is out of date.
    """
    if not fresh:
        return ["roll back"]
    return [] if list(chain) == list(layers) and dict(now) == dict(image) else ["define"]


def refuse_loss(content: Blocks | None, size: int, versions: t.Iterable[tuple[int, Blocks]], discard: bool) -> None:
    """Refuse to lose content that no version has (pure).

    :param content: what a guest sees of the disk, ``None`` where that isn't known.
    :param versions: size and content of each version.
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
    """A disk's content: the blocks that a guest sees (``None`` where they aren't known), and whether all of them are
    the layer's below."""

    content: Blocks | None
    pristine: bool


def read_disk(store: Store, depot: disk.Depot, found: Found) -> Disk:
    """Read the content of a stopped machine's disk."""
    path = found.disk_path or depot.disk(found.uuid)
    size = _own_disk(found).size
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


def _own_disk(found: Found) -> disk.Disk:
    if found.observed.disk is None:
        raise ValueError("a machine that is held has a disk")
    return found.observed.disk


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
) -> RollbackRow:
    """Bring a machine whose lock is held to a version of the store.

    :raises GridError: ``machine_running``, ``unsaved_changes``, ``disk_failed``.
    """
    require_stopped(found.observed.state)
    _refuse_snapshots(found.domain.snapshotNum(0))
    digest = manifest["layers"][-1]
    image: Image = {"name": reference(manifest["name"], manifest["version"]), "digest": digest}
    layers = depot.chain(digest).paths
    before = found.observed.defined[1]["image"]
    own = _own_disk(found)
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
        "digest": digest,
        "layers": manifest["layers"],
        "disk": size,
        "previous": before,
        "changed": bool(actions),
        "actions": actions,
        "diff": diff(f"machine {found.domain.name()}", {"image": before}, {"image": image}) if actions else None,
    }


def _refuse_saved(found: Found, depot: disk.Depot, discard: bool) -> None:
    """Refuse to lose a saved memory, which doesn't fit the new disk. :raises GridError: ``unsaved_changes``."""
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
    image: Image,
    size: int | None,
) -> None:
    """Roll back in three atomic steps; after each of them the machine sees the right disk.

    While the disk is replaced the domain names no chain, so that libvirt follows the file of the disk, old or new. A
    domain that names another chain than its disk has would show the guest a mixture.

    :param size: of the new disk, ``None`` to keep the disk and only define the domain.
    """
    tree, conn = found.tree, hypervisor.conn
    with translated("roll the machine back"):
        if size is not None:
            if found.domain.hasManagedSaveImage(0):
                found.domain.managedSaveRemove(0)
            hibernate.discard(depot, found.uuid)
            domain_xml.set_chain(tree, None)
            conn.defineXML(domain_xml.to_text(tree))
            path = found.disk_path or depot.disk(found.uuid)
            disk.replace_disk(depot, found.uuid, path, lambda new: disk.Overlays().write(new, layers[0], size))
        values = found.observed.defined[1]
        domain_xml.set_chain(tree, layers)
        domain_xml.put_metadata(tree, {**values, "image": image})
        conn.defineXML(domain_xml.to_text(tree))
