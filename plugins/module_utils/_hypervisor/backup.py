# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a running machine's disk as it is at one moment: libvirt's backup job, written while the guest runs on."""

from __future__ import annotations

import contextlib
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, monitor
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import Events, libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

Progress = t.Callable[[int, int], None]
"""Called with the bytes that are copied, and all that are to be."""

_AGENT_PATIENCE = 5
_ABORT_PATIENCE = 60
_THAW_PATIENCE = 30


def description(domain: ET.Element, path: str) -> str:
    """The XML of a backup of the root disk into a new qcow2 file, and of no other disk (pure).

    qcow2, because it has holes: a raw file gets its full length where the disk has zeros.
    """
    root = ET.Element("domainbackup", mode="push")
    disks = ET.SubElement(root, "disks")
    for target in domain.findall("devices/disk/target"):
        name = target.get("dev", "")
        if name != domain_xml.ROOT_DISK:
            ET.SubElement(disks, "disk", name=name, backup="no")
            continue
        disk = ET.SubElement(disks, "disk", name=name, backup="yes", type="file", backupmode="full")
        ET.SubElement(disk, "driver", type="qcow2")
        ET.SubElement(disk, "target", file=path)
    return ET.tostring(root, encoding="unicode")


def targets(text: str) -> list[str]:
    """The files that a running backup writes, by libvirt's XML of it (pure)."""
    return [target.get("file", "") for target in ET.fromstring(text).findall("disks/disk/target")]


def copy(
    domain: Domain, events: Events, path: str, timeout: float, agent: bool, progress: Progress | None = None
) -> str:
    """Copy the root disk as it is now to the qcow2 file ``path``, while the guest runs.

    :param timeout: seconds.
    :param agent: whether the guest's agent answers; it then freezes the file systems for the moment that is copied.
    :returns: ``filesystems`` where they were frozen, else ``crash``.
    :raises GridError: ``capture_failed``, ``capture_unsupported``, ``machine_busy``, ``guest_frozen``, ``timed_out``.
    """
    with events.of(domain.UUIDString()) as wake:
        with frozen(domain, agent) as held:
            _begin(domain, path)
        try:
            wait_for(
                lambda: _look(domain, progress),
                timeout,
                what="the copy of the running disk",
                wake=wake,
                remedy="Give it more time (option timeout), or capture the machine while it is stopped",
            )
        except BaseException:
            abort(domain)
            raise
    return "filesystems" if held else "crash"


def _begin(domain: Domain, path: str) -> None:
    text = description(domain_xml.parse(domain.XMLDesc(0)), path)
    monitor.activate(domain)
    try:
        domain.backupBegin(text, None, 0)
    except libvirt.libvirtError as exc:
        number = exc.get_error_code()
        if number in (
            libvirt.VIR_ERR_NO_SUPPORT,
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
            libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        ):
            raise GridError(
                "capture_unsupported",
                f"this host can't copy the disk of a running machine: {exc}",
                remedy="Stop the machine, capture it, and start it again",
            ) from exc
        if number in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_TIMEOUT):
            raise GridError(
                "machine_busy", f"another job works on the machine's disk: {exc}", remedy="Run again when it has ended"
            ) from exc
        raise


def _look(domain: Domain, progress: Progress | None) -> None:
    """:raises Pending: while the job goes on."""
    try:
        stats = domain.jobStats(0)
        if stats.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE:
            stats = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError as exc:
        raise _failed(str(exc)) from exc
    kind = stats.get("type", 0)
    if kind in (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED):
        done, total = stats.get("disk_processed", 0), stats.get("disk_total", 0)
        if progress is not None and total:
            progress(done, total)
        raise Pending(f"{done} of {total} bytes copied")
    if kind != libvirt.VIR_DOMAIN_JOB_COMPLETED:
        raise _failed(stats.get("errmsg") or "the job was ended")


def _failed(why: str) -> GridError:
    return GridError(
        "capture_failed",
        f"the running disk could not be copied: {why}",
        remedy="See that the machine runs and that the image store has room for its disk, then run again",
    )


def abort(domain: Domain) -> None:
    """End a backup and wait until QEMU has closed its file. Does nothing where there is none."""

    def probe() -> None:
        try:
            domain.backupGetXMLDesc(0)
        except libvirt.libvirtError:
            return
        with contextlib.suppress(libvirt.libvirtError):
            domain.abortJob()
        raise Pending("the job is still there")

    with contextlib.suppress(GridError):
        wait_for(probe, _ABORT_PATIENCE, what="the end of the backup")


def abandoned(domain: Domain, directory: str) -> bool:
    """Whether a backup into this directory still runs that a killed run began."""
    try:
        text = domain.backupGetXMLDesc(0)
    except libvirt.libvirtError:
        return False
    return any(path.startswith(directory + "/") for path in targets(text))


@contextlib.contextmanager
def frozen(domain: Domain, agent: bool, patience: int = _AGENT_PATIENCE) -> t.Iterator[bool]:
    """Freeze the guest's file systems while the body runs, if its agent can; yields whether they are frozen.

    A guest that doesn't freeze them in time may do so later, so it is thawed in any case. So is one that a killed run
    left frozen.

    :param patience: seconds for the agent to answer.
    """
    if not agent:
        yield False
        return
    held = False
    try:
        with contextlib.suppress(libvirt.libvirtError, AttributeError):
            domain.agentSetResponseTimeout(patience, 0)
        with contextlib.suppress(libvirt.libvirtError):
            domain.fsThaw()
        with contextlib.suppress(libvirt.libvirtError):
            held = domain.fsFreeze() > 0
        yield held
    finally:
        _thaw(domain, held)


def _thaw(domain: Domain, held: bool) -> None:
    def probe() -> None:
        try:
            domain.fsThaw()
        except libvirt.libvirtError as exc:
            if held and domain.isActive():
                raise Pending(str(exc)) from exc

    with translated("thaw the guest's file systems"):
        try:
            wait_for(probe, _THAW_PATIENCE, what="the guest's agent")
        except GridError as exc:
            raise GridError(
                "guest_frozen",
                f"the guest's file systems were frozen and its agent does not thaw them: {exc.details.get('last')}",
                remedy="Run virsh domfsthaw on the host, or restart the machine",
            ) from exc
