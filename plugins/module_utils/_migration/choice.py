# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a machine gets from one provider to another: which way, whether it can, and what it takes (pure)."""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import Host, View
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

LIVE, HIBERNATED, COLD = "live", "hibernated", "cold"
MODES = (LIVE, HIBERNATED, COLD)

SLOWEST = 600
"""Seconds that the memory of a machine may take over the link. Over a slower one the machine is put to sleep for its
journey."""

OLDEST = {"libvirt_version": "8.0.0", "qemu_version": "6.2.0"}
"""What is tested; the oldest distribution that the role provider sets up has newer ones."""

# Devices that are tied to the host, by their element; and disks and channels with a source that is of the host
_TIED = {
    "hostdev": "a device of the host",
    "redirdev": "a redirected USB device",
    "filesystem": "a directory of the host",
    "smartcard": "a smart card of the host",
    "tpm": "a TPM",
    "shmem": "memory shared with the host",
    "memory": "a memory module",  # but for the one of ours, which comes along
    "vsock": "a socket to the host",
}
_OWN_DISKS = (domain_xml.ROOT_DISK, domain_xml.SEED_DISK)
_MOVING_SOURCES = ("pty", "unix", "null", "spicevmc", "vdagent", "dbus", "qemu-vdagent")


def tied(domain: ET.Element) -> list[str]:
    """The devices of a domain that can't come along, in words."""
    found = []
    devices = domain.find("devices")
    for each in devices if devices is not None else ():
        if each.tag == "memory" and each.get("model") == "virtio-mem" and each.find("source/path") is None:
            continue
        if each.tag in _TIED:
            model = each.get("type") or each.get("model") or ""
            found.append(f"{_TIED[each.tag]} ({each.tag}{' ' + model if model else ''})")
        elif each.tag == "disk":
            target = each.find("target")
            name = target.get("dev", "?") if target is not None else "?"
            if name not in _OWN_DISKS and each.get("type") != "network" and each.find("source") is not None:
                found.append(f"a disk or CD of the host (disk {name})")
        elif each.tag == "interface" and each.get("type") not in ("network", "bridge"):
            found.append(f"a network card on the host's own interface (interface {each.get('type')})")
        elif each.tag in ("serial", "parallel", "console", "channel") and each.get("type") not in _MOVING_SOURCES:
            found.append(f"a port to something of the host ({each.tag} {each.get('type')})")
    return found


def choose_mode(state: str, memory: int, speed: float | None = None) -> str:
    """How a machine goes if nobody says.

    :param memory: the guest's, bytes.
    :param speed: the link's in bytes a second, where known.
    """
    if state == "hibernated":
        return HIBERNATED
    if state == "stopped":
        return COLD
    return HIBERNATED if speed and memory / float(speed) > SLOWEST else LIVE


def _number(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in str(version).split(".")]


def _refuse(code: str, msg: str, remedy: str, **details: object) -> GridError:
    error = GridError(code, msg, remedy=remedy)
    error.details.update(details)
    return error


def _check_mode(mode: str, view: View) -> t.Iterator[GridError]:
    fits = {LIVE: ("running", "paused"), HIBERNATED: ("running", "paused", "hibernated"), COLD: ("stopped",)}[mode]
    if view["state"] not in fits:
        yield _refuse(
            "wrong_state",
            f"the machine is {view['state']}; it can go {mode} only if it is {' or '.join(fits)}",
            "Leave the mode out, or bring the machine to that state first: virtuoso.grid.power",
        )
    if view.get("disk") is None:
        yield _refuse(
            "disk_missing",
            "its disk is gone, or can't be read",
            "Bring the file back; or retire the machine and deploy it anew, without its data",
        )
    if view.get("tied"):
        yield _refuse(
            "device_tied",
            f"it has what can't come along: {', '.join(view['tied'])}",
            "Detach it, then run again",
            devices=list(view["tied"]),
        )
    if view.get("pages"):
        yield _refuse(
            "machine_pages",
            "its image isn't all here yet",
            "Run virtuoso.grid.deploy, which brings the image, then run again",
        )
    if view.get("snapshots"):
        yield _refuse(
            "has_snapshots",
            f"it has {view['snapshots']} snapshots, which libvirt can't take along",
            "Delete them, or keep one as a version of an image: virtuoso.grid.images -e capture=NAME",
        )


def _check_host(mode: str, view: View, target: Host) -> t.Iterator[GridError]:
    name = target["name"]
    for key, oldest in OLDEST.items():
        if _number(str(target.get(key) or "0")) < _number(oldest):
            yield _refuse(
                "version_too_old", f"{name} has {key[:-8]} {target.get(key)}, the least is {oldest}", "Update it"
            )
    if view["virtualization"] == "kvm" and target.get("virtualization") != "kvm":
        yield _refuse(
            "virtualization_missing", f"{name} has no KVM, on which the machine relies", "Choose a provider with KVM"
        )
    machine = view.get("machine_type")
    types = target.get("machine_types") or []
    if machine and machine not in types:
        yield _refuse(
            "machine_type_missing",
            f"{name} doesn't have the machine type {machine}; its newest is {types[-1] if types else 'none'}",
            "Choose a provider whose QEMU has it; new machines get a type that all providers have",
            machine_type=machine,
        )
    if target.get("cpu", {}).get(str(view.get("uuid"))) is False:
        yield _refuse(
            "cpu_incompatible",
            f"{name}'s processor lacks features that the guest uses",
            "Choose a provider with a processor of the same kind or newer; or move the machine cold",
        )
    lacking = [
        network
        for network in (view.get("network"), *(view.get("extra_networks") or ()))
        if network not in (target.get("networks") or [])
    ]
    if lacking:
        yield _refuse(
            "network_missing",
            f"{name} has no active network {', '.join(map(str, lacking))}",
            "Run virtuoso.grid.setup, or connect that provider to the network",
        )


def _check_room(view: View, target: Host, reserve: int) -> t.Iterator[GridError]:
    name = target["name"]
    free = target["memory"] - target.get("memory_allocated", 0) - target.get("memory_promised", 0) - reserve
    free = min(free, target.get("memory_free", free))
    if view["memory"] > free:
        yield _refuse(
            "no_memory",
            f"{name} has {format_size(max(0, free))} of memory free, the machine needs {format_size(view['memory'])}",
            "Choose another provider, or move machines away from this one",
        )
    room = target.get("disk_free", 0) - target.get("disk_promised", 0)
    if needed(view) > room:
        yield _refuse(
            "no_disk",
            f"{name}'s depot has {format_size(max(0, room))} free, the machine needs {format_size(needed(view))}",
            "Choose another provider, or free space in its depot: virtuoso.grid.images -e prune=true",
        )


def needed(view: View) -> int:
    """Bytes that a machine takes of the target's depot, but for its image."""
    return int(view.get("disk_used") or 0) + int(view.get("memory_file") or 0)


def check(mode: str, view: View, target: Host, *, reserve: int = 0, layers_come: bool = True) -> list[GridError]:
    """All reasons why the machine can't go there that way; nothing was touched to find them.

    :param view: the machine as the module ``machine_migrate`` returned it of the source.
    :param target: what the target offers, with ``name``.
    :param reserve: bytes of memory that the target keeps for itself.
    :param layers_come: missing layers of the image are brought first.
    """
    errors = [*_check_mode(mode, view), *_check_host(mode, view, target), *_check_room(view, target, reserve)]
    if not layers_come and not set(view.get("layers") or ()) <= set(target.get("layers") or ()):
        missing = sorted(set(view["layers"]) - set(target.get("layers") or ()))
        errors.append(
            _refuse(
                "image_missing",
                f"{target['name']} lacks layers of its image: {', '.join(missing)}",
                "Transfer the image first",
            )
        )
    taken = (target.get("domains") or {}).get(view["name"])
    if taken and taken != view["uuid"]:
        errors.append(
            _refuse(
                "foreign_domain",
                f"{target['name']} has another domain of this name ({taken}); it was left alone",
                "Rename or remove that one",
            )
        )
    holder = (target.get("leases") or {}).get(view.get("lease") or "")
    if mode != COLD and view.get("lease") and holder and holder != view.get("mac"):
        errors.append(
            _refuse(
                "address_taken",
                f"its address {view['lease']} belongs to another machine"
                f" in the network {view.get('network')} of {target['name']}",
                "Move it cold, so that it gets another address;"
                " or tie both networks to the home's own, which has no address twice",
                address=view["lease"],
            )
        )
    return errors


def describe(mode: str, view: View, source: Host, target: Host) -> str:
    """The plan in one line."""
    size = {
        LIVE: view["memory"] + view.get("disk_used", 0),
        HIBERNATED: view["memory"] + view.get("disk_used", 0),
        COLD: view.get("disk_used", 0),
    }[mode]
    missing = [layer for layer in view.get("layers") or () if layer not in (target.get("layers") or ())]
    image = f", {len(missing)} layers of its image first" if missing else ""
    qemu = f"QEMU {source.get('qemu_version')} to {target.get('qemu_version')}"
    libvirt = f"libvirt {source.get('libvirt_version')} to {target.get('libvirt_version')}"
    return f"{mode}, up to {format_size(size)}{image}; {view.get('machine_type')}; {qemu}, {libvirt}"
