# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effects on what a machine's disk lies on: moved from an export to layers, or to another export, while the guest
runs or not.

A running machine's overlay is copied, without what lies below it, to another one on the new chain, and QEMU changes
over when both are equal. It does that as well where the guest stands still because the export is gone, for nothing
below the overlay is read. Whoever is killed in between leaves what :func:`paging.decide` finds: the domain names the
disk that counts.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import disk_base
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

Pages = t.Optional[t.Dict[str, t.Any]]

_MOVE_TIMEOUT = 900
# QEMU's client of an export that was lost connects anew beside the next read, which fails while it does: seconds for it
# to succeed, to see that the guest gets on, and between two tries.
_RESUME_TIMEOUT = 20
_RESUME_WATCH = 2
_RESUME_PAUSE = 0.5


class Machine(t.Protocol):
    """What is used here of :class:`lifecycle.Machine`."""

    host: t.Any
    uuid: str
    wanted: t.Any
    domain: t.Any
    tree: t.Any


def for_definition(machine: Machine) -> dict[str, t.Any]:
    """``disk_path``, ``layers`` and ``pages`` of the domain to be, by the disk that was made for it."""
    depot = machine.host.depot
    path = depot.found_disk(machine.uuid, None)
    if path in depot.paging_disks(machine.uuid):
        return {"disk_path": path, "layers": [], "pages": machine.wanted["pages"]}
    return {"disk_path": path, "layers": depot.chain(machine.wanted["image"]["digest"]).paths, "pages": None}


def settle(machine: Machine) -> None:
    """Have the disk lie on the layers that are here, and remove what it was before."""
    depot = machine.host.depot
    layers = depot.chain(machine.wanted["image"]["digest"]).paths
    _move(machine, depot.disk(machine.uuid), layers, None)
    for path in depot.paging_disks(machine.uuid):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def repoint(machine: Machine) -> None:
    """Have the disk lie on another export."""
    names = machine.host.depot.paging_disks(machine.uuid)
    tree = observe.running(machine.domain) if machine.domain.isActive() else machine.tree
    now = domain_xml.read(tree)["disk_path"]
    active = machine.domain.isActive()
    target = next(path for path in names if path != now) if active else names[0]
    _move(machine, target, [], machine.wanted["pages"])
    if active:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(now)


def _move(machine: Machine, target: str, layers: list[str], pages: Pages) -> None:
    if machine.domain is not None and machine.domain.isActive():
        _copy(machine, target, layers, pages)
        machine.tree = observe.configured(machine.domain)
    else:
        now = machine.host.depot.found_disk(
            machine.uuid, domain_xml.read(machine.tree)["disk_path"] if machine.tree is not None else None
        )
        if now in machine.host.depot.paging_disks(machine.uuid):
            disk.rebase(now, layers[0] if layers else disk_base.export_uri(pages or {}))
            if now != target:
                disk.rename(now, target)
    if machine.domain is not None:
        domain_xml.set_disk(machine.tree, target, layers, pages)
        machine.host.hypervisor.conn.defineXML(domain_xml.to_text(machine.tree))


def _copy(machine: Machine, target: str, layers: list[str], pages: Pages) -> None:
    """Copy the overlay of a running machine to ``target`` and change over."""
    domain = machine.domain
    tree = observe.running(domain)
    now = domain_xml.read(tree)["disk_path"]
    if domain_xml.mirror(tree) is not None:
        # Another run's, which was killed: it may go to another place than ours.
        domain.blockJobAbort(domain_xml.ROOT_DISK, 0)
    if now == target:
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    machine.host.overlays.write(
        target, layers[0] if layers else disk_base.export_uri(pages or {}), disk.read_qcow2(now).size
    )
    flags = (
        libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW
        | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
        | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    )
    domain.blockCopy(domain_xml.ROOT_DISK, domain_xml.copy_target(target, layers, pages), {}, flags)

    def probe() -> None:
        ready = domain_xml.mirror(observe.running(domain))
        if ready is None:
            raise GridError(
                "settle_failed",
                "the copy of the disk's changes ended before it was whole; the machine goes on with the disk that it had",
                remedy="See that the depot's file system has room, then run again",
            )
        if not ready:
            raise Pending("the copy of the disk's changes has not caught up")

    try:
        with machine.host.hypervisor.events.of(machine.uuid) as wake:
            wait_for(probe, _MOVE_TIMEOUT, what="the disk's move", wake=wake, interval=0.5)
    except GridError:
        with contextlib.suppress(libvirt.libvirtError):
            domain.blockJobAbort(domain_xml.ROOT_DISK, 0)
        raise
    domain.blockJobAbort(domain_xml.ROOT_DISK, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def paused_by_error(domain: t.Any) -> bool:
    """Whether the guest stands still because of an error of its disk."""
    state, reason = domain.state()[:2]
    return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR)


def resume(machine: Machine) -> None:
    """Let the guest run; one whose export was lost is watched until it is seen to get on.

    :raises GridError: ``source_lost`` where it stands still again.
    """
    domain = machine.domain
    pages = domain_xml.read(observe.running(domain))["pages"]
    if pages is None or not paused_by_error(domain):
        domain.resume()
        return

    def probe() -> None:
        if not paused_by_error(domain):
            raise Pending("it runs")

    end = time.monotonic() + _RESUME_TIMEOUT
    while time.monotonic() < end:
        domain.resume()
        try:
            with machine.host.hypervisor.events.of(machine.uuid) as wake:
                wait_for(probe, _RESUME_WATCH, what="another pause", wake=wake, interval=0.2)
        except GridError as exc:
            if exc.code == "timed_out":
                return
            raise
        time.sleep(_RESUME_PAUSE)
    raise disk_base.source_lost(pages)
