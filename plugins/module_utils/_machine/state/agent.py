# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in a guest through its agent, whose answers are not trusted."""

from __future__ import annotations

import base64
import contextlib
import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

try:
    import libvirt_qemu
except ImportError:
    libvirt_qemu = None

# Seconds for an agent to answer
PATIENCE = 5
_FILE_SYSTEM_TIMEOUT = 60

GROW = """set -e
set -- $(findmnt -nro SOURCE,FSTYPE /)
device=$(readlink -f "$1")
place=/sys/class/block/${device##*/}
if [ -f "$place/partition" ]; then
    read -r number < "$place/partition"
    disk=$(basename "$(dirname "$(readlink -f "$place")")")
    growpart "/dev/$disk" "$number" || [ $? = 1 ]
fi
case $2 in
    ext2|ext3|ext4) resize2fs "$device" ;;
    xfs) xfs_growfs / ;;
    btrfs) btrfs filesystem resize max / ;;
    *) echo "a file system of type $2 can't be grown" >&2; exit 3 ;;
esac
"""
"""Grows the root partition, where there is one, and its file system. growpart, of cloud-guest-utils, ends with 1 where
there is nothing to do."""


def connected(domain: Domain) -> bool:
    """Whether the guest's agent has opened its channel."""
    return domain_xml.agent_connected(domain_xml.parse(domain.XMLDesc(0)))


def _ask(domain: Domain, command: str, **arguments: object) -> t.Any:
    """The agent's answer to a command; its form depends on the command, and on the guest."""
    said = libvirt_qemu.qemuAgentCommand(domain, json.dumps({"execute": command, "arguments": arguments}), PATIENCE, 0)
    return json.loads(said).get("return")


def run(domain: Domain, script: str, timeout: float, what: str) -> None:
    """Run a shell script in the guest, as root, and wait for its end.

    :raises GridError: ``agent_failed``.
    """
    if libvirt_qemu is None:
        raise GridError(
            "library_missing",
            "the Python library libvirt_qemu is not installed",
            remedy="Run the playbook virtuoso.grid.setup on this host",
        )

    def failed(why: str) -> GridError:
        return GridError(
            "agent_failed",
            f"the guest could not {what}: {why}",
            remedy="Do it in the guest; or reboot it, where its image does so at boot",
        )

    try:
        pid = _ask(domain, "guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True})["pid"]

        def probe() -> t.Mapping[str, str | int | bool | None]:
            status: t.Mapping[str, str | int | bool | None] = _ask(domain, "guest-exec-status", pid=pid)
            if not status.get("exited"):
                raise Pending("its script runs")
            return status

        status = wait_for(probe, timeout, what="the end of the guest's script", interval=0.3)
    except (libvirt.libvirtError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise failed(str(exc)[:300]) from exc
    if status.get("exitcode") != 0:
        said = b""
        with contextlib.suppress(ValueError, TypeError):
            said = base64.b64decode(str(status.get("err-data") or ""))
        text = "".join(char if char.isprintable() else " " for char in said.decode("utf-8", "replace")).strip()
        raise failed(text[-300:] or f"its script ended with {status.get('exitcode')}")


def grow_filesystem(domain: Domain) -> None:
    """Grow the root file system to the size of its disk. :raises GridError: ``agent_failed``."""
    run(domain, GROW, _FILE_SYSTEM_TIMEOUT, "grow its file system")
