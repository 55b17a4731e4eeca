# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's hardware that can change while it runs (processors, memory, network cards), and its boot order (pure).

Memory that can be added is one virtio-mem device: it grows and shrinks by blocks, where a DIMM comes and goes as a
whole. It needs a NUMA cell to belong to.
"""

from __future__ import annotations

import copy
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Card, DomainModel, Hardware

MIB = 2**20
BLOCK = 2 * MIB
"""Bytes of a block of added memory: a huge page of the guest, the smallest block of virtio-mem."""

SPARE_PORTS = 4
"""Slots for cards that are plugged in while the machine runs. On a q35 each device needs a port of its own, and ports
can't be added then."""

_KIB = 1024
_CARD = "ua-net-"


def sub(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    """Append a child element, and return it."""
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _number(domain: ET.Element, path: str) -> int:
    return int(domain.findtext(path, "0"))


def child(parent: ET.Element, tag: str) -> ET.Element:
    """The parent's first child of this tag, made where there is none."""
    found = parent.find(tag)
    return found if found is not None else ET.SubElement(parent, tag)


def default_vcpus_max(vcpus: int) -> int:
    """To how many processors a machine may grow while it runs, if the order doesn't say: twice as many.

    Each costs its guest some 200 KiB. More than 255 in all would need an interrupt remapper, which machines don't have.
    """
    return 2 * vcpus if 2 * vcpus <= 255 else vcpus


def guest_device(mac: str) -> str:
    """The name of the host's end of a card: made of the MAC address, so that firewall rules can bind the two."""
    return "vm" + mac.replace(":", "").lower()


# Processors


class _Processors(t.NamedTuple):
    now: int
    most: int


def _processors(domain: ET.Element) -> _Processors:
    holder = domain.find("vcpu")
    if holder is None:
        return _Processors(1, 1)
    most = int(holder.text or "1")
    return _Processors(int(holder.get("current", most)), most)


def set_vcpus(domain: ET.Element, number: int, most: int | None = None) -> None:
    """Set the number of processors at the next start, and how far it can grow: to ``most``; without it to what it is
    now, or the default where that is too little."""
    if most is None:
        most = _processors(domain).most
        most = most if most >= number else default_vcpus_max(number)
    most = max(most, number)
    holder = domain.find("vcpu")
    if holder is None:
        holder = sub(domain, "vcpu", placement="static")
    holder.text = str(most)
    holder.attrib.pop("current", None)
    if most > number:
        holder.set("current", str(number))
    # One element per processor, which would contradict the new number
    for each in domain.findall("vcpus"):
        domain.remove(each)
    if most > 1:
        each = sub(domain, "vcpus")
        for index in range(most):
            sub(
                each,
                "vcpu",
                id=str(index),
                enabled="yes" if index < number else "no",
                hotpluggable="yes" if index else "no",
            )
    for cell in domain.findall("cpu/numa/cell[@id='0']"):
        cell.set("cpus", _all(most))


def _all(most: int) -> str:
    return f"0-{most - 1}" if most > 1 else "0"


# Memory


class _Memory(t.NamedTuple):
    """All in bytes; see :class:`records.Hardware`."""

    now: int
    most: t.Optional[int]
    base: int
    ceiling: int


def _memory(domain: ET.Element) -> _Memory:
    # libvirt writes sizes in KiB, whatever unit they were given in
    total = _number(domain, "memory") * _KIB
    devices = domain.findall("devices/memory[@model='virtio-mem']")
    room = sum(_number(each, "target/size") for each in devices) * _KIB
    asked = sum(_number(each, "target/requested") for each in devices) * _KIB
    base = total - room
    now = base + asked
    if domain.get("id") is not None:
        # What balloon and guest left it; libvirt keeps this up to date
        now = _number(domain, "currentMemory") * _KIB or now
    return _Memory(now, total if devices else None, base, total)


def _balloon(domain: ET.Element) -> bool:
    balloon = domain.find("devices/memballoon")
    return balloon is not None and balloon.get("model") != "none"


def set_memory(domain: ET.Element, size: int, most: int | None) -> None:
    """Set the memory at the next start, and how far it can grow, both in bytes."""
    devices = child(domain, "devices")
    for each in domain.findall("devices/memory[@model='virtio-mem']"):
        devices.remove(each)
    total = most if most is not None and most > size else size
    for old in domain.findall("maxMemory"):
        domain.remove(old)
    for tag, value in (("memory", total), ("currentMemory", size)):
        _set_size(domain, tag, value)
    cpu = domain.find("cpu")
    if cpu is not None:
        for old in cpu.findall("numa"):
            cpu.remove(old)
    if total == size:
        return
    sub(domain, "maxMemory", str(total // _KIB), unit="KiB", slots="1")
    cpu = cpu if cpu is not None else sub(domain, "cpu")
    cell = {"id": "0", "cpus": _all(_processors(domain).most), "memory": str(size // _KIB), "unit": "KiB"}
    sub(sub(cpu, "numa"), "cell", **cell)
    target = sub(sub(devices, "memory", model="virtio-mem"), "target")
    sub(target, "size", str((total - size) // _KIB), unit="KiB")
    sub(target, "node", "0")
    sub(target, "block", str(BLOCK // _KIB), unit="KiB")
    sub(target, "requested", "0", unit="KiB")


def _set_size(domain: ET.Element, tag: str, size: int) -> None:
    element = child(domain, tag)
    element.text = str(size // _KIB)
    element.set("unit", "KiB")


class MemorySplit(t.NamedTuple):
    """An amount of memory as a running machine gets it: what its balloon leaves it, and what is requested of the device
    of added memory; both in bytes."""

    balloon: int
    requested: int


def memory_split(live: DomainModel, size: int) -> MemorySplit:
    """Split ``size`` bytes into the memory that the machine was started with and what is added to that."""
    base = live["memory_base"]
    return MemorySplit(min(size, base), max(0, size - base))


def memory_device(domain: ET.Element, requested: int) -> str | None:
    """The XML of the running domain's device of added memory with ``requested`` bytes, for
    ``virDomainUpdateDeviceFlags``; ``None`` where there is no device or nothing to change."""
    device = domain.find("devices/memory[@model='virtio-mem']")
    if device is None or _number(device, "target/requested") * _KIB == requested:
        return None
    _set_size(child(device, "target"), "requested", requested)
    return ET.tostring(device, encoding="unicode")


# Network cards beside the first


def _cards(domain: ET.Element) -> dict[str, ET.Element]:
    found = {}
    for card in domain.findall("devices/interface"):
        alias = card.find("alias")
        name = alias.get("name", "") if alias is not None else ""
        if name.startswith(_CARD):
            found[name[len(_CARD) :]] = card
    return found


def card(network: str, given: Card) -> ET.Element:
    """The element of a card on another network; its alias tells it apart from cards that others added."""
    interface = ET.Element("interface", type="network")
    sub(interface, "mac", address=given.mac)
    sub(interface, "source", network=network)
    sub(interface, "target", dev=guest_device(given.mac))
    sub(interface, "model", type="virtio")
    if given.mtu:
        sub(interface, "mtu", size=str(given.mtu))
    sub(interface, "rom", enabled="no")
    sub(interface, "alias", name=_CARD + network)
    return interface


def card_text(domain: ET.Element, network: str, new: bool = False) -> str | None:
    """The XML of the card on a network, for ``virDomainDetachDeviceFlags``, or with ``new`` for
    ``virDomainAttachDeviceFlags``; ``None`` where there is none."""
    found = _cards(domain).get(network)
    if found is None:
        return None
    shown = copy.deepcopy(found)
    for address in shown.findall("address") if new else ():
        # The slot that the card will have after the next start may be in use now.
        shown.remove(address)
    return ET.tostring(shown, encoding="unicode")


def set_cards(domain: ET.Element, wanted: t.Mapping[str, Card]) -> None:
    """Set the machine's cards beside its first, by their networks. Cards that are there stay as they are."""
    devices = child(domain, "devices")
    there = _cards(domain)
    for network in there.keys() - wanted.keys():
        devices.remove(there[network])
    for network in sorted(wanted.keys() - there.keys()):
        devices.append(card(network, wanted[network]))


def _ports(domain: ET.Element) -> set[int]:
    return {int(each.get("index", "0")) for each in domain.findall("devices/controller[@model='pcie-root-port']")}


def free_ports(domain: ET.Element) -> int:
    """How many more cards can be plugged into a running machine."""
    used = domain.findall("devices/*/address[@type='pci']")
    if domain.find("devices/controller[@model='pcie-root']") is None:
        # A PCI bus has 32 slots, of which the chip set uses some.
        return max(0, 28 - len(used))
    return len(_ports(domain) - {int(address.get("bus", "0"), 16) for address in used})


def add_ports(domain: ET.Element) -> None:
    """Add a port for each device, and :data:`SPARE_PORTS`, to a domain that is not defined yet."""
    devices = child(domain, "devices")
    count = sum(
        len(devices.findall(path))
        for path in ("disk", "interface", "controller[@type='usb']", "rng", "memballoon", "memory")
    )
    sub(devices, "controller", type="pci", index="0", model="pcie-root")
    # And the controller of the agent's channel
    for dummy in range(count + 1 + SPARE_PORTS):
        sub(devices, "controller", type="pci", model="pcie-root-port")


# What it boots from


def _bootable(domain: ET.Element, root: ET.Element | None) -> dict[str, ET.Element | None]:
    own = [each for each in domain.findall("devices/interface") if each not in _cards(domain).values()]
    return {"disk": root, "network": own[0] if own else None}


def _boot(domain: ET.Element, root: ET.Element | None) -> list[str]:
    orders = []
    for kind, device in _bootable(domain, root).items():
        boot = device.find("boot") if device is not None else None
        if boot is not None:
            orders.append((int(boot.get("order", "0")), kind))
    return [kind for dummy, kind in sorted(orders)] or ["disk"]


def set_boot(domain: ET.Element, root: ET.Element | None, order: t.Sequence[str]) -> None:
    """Set what the machine tries to boot from, in this order. The card has a boot ROM, which takes time, only if it is
    used."""
    for kind, device in _bootable(domain, root).items():
        if device is None:
            continue
        for tag in ("boot", "rom") if kind == "network" else ("boot",):
            for old in device.findall(tag):
                device.remove(old)
        if kind in order:
            sub(device, "boot", order=str(list(order).index(kind) + 1))
        elif kind == "network":
            sub(device, "rom", enabled="no")


def read(domain: ET.Element, root: ET.Element | None) -> Hardware:
    """The hardware of a domain.

    :param root: the element of its root disk.
    """
    processors, memory = _processors(domain), _memory(domain)
    return {
        "vcpus": processors.now,
        "vcpus_max": processors.most,
        "vcpus_removable": len(domain.findall("vcpus/vcpu[@enabled='yes'][@hotpluggable='yes']")),
        "memory": memory.now,
        "memory_max": memory.most,
        "memory_base": memory.base,
        "memory_ceiling": memory.ceiling,
        "balloon": _balloon(domain),
        "extra_networks": sorted(_cards(domain)),
        "free_ports": free_ports(domain),
        "boot": _boot(domain, root),
    }
