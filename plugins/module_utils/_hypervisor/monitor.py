# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU can do and libvirt has no call for, through libvirt's connection to QEMU's monitor (``virsh
qemu-monitor-command``)."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import SETUP, libvirt

try:
    import libvirt_qemu
except ImportError:
    libvirt_qemu = None

_EXPORT = "virtuoso-activate"


class Refused(Exception):
    """QEMU refused a command. ``kind`` is its class of error."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def ask(domain: Domain, execute: str, **arguments: object) -> t.Any:
    """QEMU's answer to a command; its form depends on the command.

    :raises Refused: where the answer is an error.
    :raises GridError: ``library_missing``.
    """
    if libvirt_qemu is None:
        raise GridError("library_missing", "the Python library libvirt_qemu is not installed", remedy=SETUP)
    said = json.loads(
        libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": execute, "arguments": arguments}), 0)
    )
    if "error" in said:
        raise Refused(str(said["error"].get("class")), str(said["error"].get("desc")))
    return said["return"]


def nodes(domain: Domain) -> dict[str, str]:
    """The names of the block nodes of QEMU's disks, by the files that they have open."""
    inserted = (each.get("inserted") or {} for each in ask(domain, "query-block"))
    return {each["file"]: each["node-name"] for each in inserted if each.get("file") and each.get("node-name")}


def activate(domain: Domain) -> None:
    """Have a paused machine's QEMU lock its disks and be ready to write. Does nothing where it has done so.

    After a machine was restored from its memory, or arrived by a move, QEMU leaves the disks inactive until the guest
    runs, because another QEMU might still use them. Until then their files are not locked. QEMU 10 refuses to grow them
    or to take a snapshot, and crashes when it deletes one, which would lose the guest's memory. Call this only for a
    copy that is known to be the only one.

    :raises GridError: ``disk_inactive``.
    """
    if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
        return
    try:
        ask(domain, "blockdev-set-active", active=True)
    except Refused as exc:
        if exc.kind != "CommandNotFound":
            raise _inactive(exc) from exc
        _activate_older(domain)


def _activate_older(domain: Domain) -> None:
    """Activate the disks with QEMU before 10.0, which has no command for it, but activates a node before it exports it.

    Nobody can reach the export: there is no server, so that QEMU refuses it after that. Where a migration has a server,
    the export is deleted at once.
    """
    for node in nodes(domain).values():
        try:
            ask(domain, "block-export-add", type="nbd", id=_EXPORT, name=_EXPORT, **{"node-name": node})
        except Refused as exc:
            if "server not running" not in str(exc):
                raise _inactive(exc) from exc
        else:
            ask(domain, "block-export-del", id=_EXPORT, mode="hard")


def _inactive(exc: Refused) -> GridError:
    return GridError(
        "disk_inactive",
        f"QEMU can't use the disk of a machine that hasn't run since it was woken: {exc}",
        remedy="See that nothing else has the disk's file open. Or let the guest run for a moment "
        "(virtuoso.grid.power with state running), then run again",
    )
