# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves a machine's disk from an export to layers, or to another export, whether the guest runs or not.

A running machine's overlay is copied, without what is below it, to another overlay on the new chain, and QEMU switches
over when both are equal. That works as well where the guest is paused because the export is gone, because nothing below
the overlay is read. After a run that was killed in between, the domain names the disk that counts, and
:func:`disk_base.decide` finds the rest.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import events_of, libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Export, Files
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import disk_base
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.subject import Subject, domain_of, wanted_of
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

_MOVE_TIMEOUT = 900
# After an export was lost, QEMU's client reconnects beside the next read, which still fails: seconds for it to succeed,
# to see that the guest runs on, and between two tries
_RESUME_TIMEOUT = 20
_RESUME_WATCH = 2
_RESUME_PAUSE = 0.5


def for_definition(machine: Subject) -> Files:
    """The files of a new domain, by the disk that was made for it."""
    depot, wanted = machine.host.depot, wanted_of(machine)
    path = depot.found_disk(machine.uuid, None)
    if path in depot.paging_disks(machine.uuid):
        return {"disk_path": path, "layers": [], "pages": wanted["pages"]}
    return {"disk_path": path, "layers": depot.chain(wanted["image"]["digest"]).paths, "pages": None}


def settle(machine: Subject) -> None:
    """Move the disk to the layers that are here, and remove the one on the export."""
    depot = machine.host.depot
    layers = depot.chain(wanted_of(machine)["image"]["digest"]).paths
    _move(machine, depot.disk(machine.uuid), layers, None)
    for path in depot.paging_disks(machine.uuid):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def repoint(machine: Subject) -> None:
    """Move the disk to another export."""
    names = machine.host.depot.paging_disks(machine.uuid)
    domain, pages = domain_of(machine), wanted_of(machine)["pages"]
    if not domain.isActive():
        _move(machine, names[0], [], pages)
        return
    now = domain_xml.read(observe.running(domain))["disk_path"]
    _move(machine, next(path for path in names if path != now), [], pages)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(now or "")


def _backing(layers: t.Sequence[str], pages: Export | None) -> str:
    """The layer or export that an overlay is directly on."""
    if layers:
        return layers[0]
    if pages is None:
        raise ValueError("a disk is on layers or on an export")
    return disk_base.export_uri(pages)


def _move(machine: Subject, target: str, layers: list[str], pages: Export | None) -> None:
    """Move the disk to the file ``target``, an overlay on ``layers`` or on the export ``pages``."""
    if machine.domain is not None and machine.domain.isActive():
        _copy(machine, machine.domain, target, layers, pages)
        machine.tree = observe.configured(machine.domain)
    else:
        configured = domain_xml.read(machine.tree)["disk_path"] if machine.tree is not None else None
        now = machine.host.depot.found_disk(machine.uuid, configured)
        if now in machine.host.depot.paging_disks(machine.uuid):
            disk.rebase(now, _backing(layers, pages))
            if now != target:
                disk.rename(now, target)
    if machine.domain is not None and machine.tree is not None:
        domain_xml.set_disk(machine.tree, target, layers, pages)
        machine.host.hypervisor.conn.defineXML(domain_xml.to_text(machine.tree))


def _copy(machine: Subject, domain: Domain, target: str, layers: list[str], pages: Export | None) -> None:
    """Copy the overlay of a running machine to ``target``, and switch over."""
    tree = observe.running(domain)
    now = domain_xml.read(tree)["disk_path"] or ""
    if domain_xml.mirror(tree) is not None:
        # A copy of a killed run, which may have another target
        domain.blockJobAbort(domain_xml.ROOT_DISK, 0)
    if now == target:
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    machine.host.overlays.write(target, _backing(layers, pages), disk.require_qcow2(now).size)
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
                "the copy of the disk's changes ended before it was whole; the machine goes on with the disk that it "
                "had",
                remedy="See that the depot's file system has room, then run again",
            )
        if not ready:
            raise Pending("the copy of the disk's changes has not caught up")

    try:
        with events_of(machine.host.hypervisor).of(machine.uuid) as wake:
            wait_for(probe, _MOVE_TIMEOUT, what="the disk's move", wake=wake, interval=0.5)
    except GridError:
        with contextlib.suppress(libvirt.libvirtError):
            domain.blockJobAbort(domain_xml.ROOT_DISK, 0)
        raise
    domain.blockJobAbort(domain_xml.ROOT_DISK, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def paused_by_error(domain: Domain) -> bool:
    """Whether the guest is paused because of an error of its disk."""
    state, reason = domain.state()[:2]
    return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR)


def resume(machine: Subject) -> None:
    """Let the guest run. One that lost its export is resumed and watched until it runs on.

    :raises GridError: ``source_lost`` where it is paused again.
    """
    domain = domain_of(machine)
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
            with events_of(machine.host.hypervisor).of(machine.uuid) as wake:
                wait_for(probe, _RESUME_WATCH, what="another pause", wake=wake, interval=0.2)
        except GridError as exc:
            if exc.code == "timed_out":
                return
            raise
        time.sleep(_RESUME_PAUSE)
    raise disk_base.source_lost(pages)
