# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a domain's hardware can grow and shrink while it runs: processors, memory, network cards; and what it boots
from (pure).

Memory that can be added is one virtio-mem device: it takes and gives back any number of blocks, where a module of
memory comes and goes as a whole. It needs a NUMA cell to belong to.
"""

from __future__ import annotations

import copy
import typing as t
import xml.etree.ElementTree as ET

Model = t.Dict[str, t.Any]

MIB = 2**20
BLOCK = 2 * MIB
"""By how much memory is added: a huge page of the guest, the least that virtio-mem knows."""

SPARE_PORTS = 4
"""Slots for cards that are plugged in while it runs; on a q35 each device has a port of its own, which can't be added
then."""

_KIB = 1024
_CARD = "ua-net-"


def _sub(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _number(domain: ET.Element, path: str) -> int:
    return int(domain.findtext(path, "0"))


def default_vcpus_max(vcpus: int) -> int:
    """To how many processors a machine may grow while it runs, if nobody says: twice as many. Each costs its guest some
    200 KiB.

    More than 255 in all would need an interrupt remapper that machines don't have.
    """
    return 2 * vcpus if 2 * vcpus <= 255 else vcpus


def guest_device(mac: str) -> str:
    """The host's end of a card: named by the MAC address, so that rules can hold the two together."""
    return "vm" + mac.replace(":", "").lower()


# Processors


def _processors(domain: ET.Element) -> Model:
    holder = domain.find("vcpu")
    most = int(holder.text or "1") if holder is not None else 1
    now = int(holder.get("current", most)) if holder is not None else 1
    removable = domain.findall("vcpus/vcpu[@enabled='yes'][@hotpluggable='yes']")
    return {"vcpus": now, "vcpus_max": most, "vcpus_removable": len(removable)}


def set_vcpus(domain: ET.Element, number: int, most: int | None = None) -> None:
    """So many processors at the next start, and room for ``most``; for as many as there is room now, or as are
    sensible, without it."""
    if most is None:
        most = _processors(domain)["vcpus_max"]
        most = most if most >= number else default_vcpus_max(number)
    most = max(most, number)
    holder = domain.find("vcpu")
    if holder is None:
        holder = _sub(domain, "vcpu", placement="static")
    holder.text = str(most)
    holder.attrib.pop("current", None)
    if most > number:
        holder.set("current", str(number))
    # One description per processor: it would contradict the new number.
    for each in domain.findall("vcpus"):
        domain.remove(each)
    if most > 1:
        each = _sub(domain, "vcpus")
        for index in range(most):
            _sub(
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


def _memory(domain: ET.Element) -> Model:
    # libvirt writes sizes in KiB, whatever unit they were given in
    total = _number(domain, "memory") * _KIB
    devices = domain.findall("devices/memory[@model='virtio-mem']")
    room = sum(_number(each, "target/size") for each in devices) * _KIB
    asked = sum(_number(each, "target/requested") for each in devices) * _KIB
    base = total - room
    now = base + asked
    if domain.get("id") is not None:
        # What the balloon and the guest left it, which libvirt keeps up to date
        now = _number(domain, "currentMemory") * _KIB or now
    balloon = domain.find("devices/memballoon")
    return {
        "memory": now,
        "memory_max": total if devices else None,
        "memory_base": base,
        "memory_ceiling": total,
        "balloon": balloon is not None and balloon.get("model") != "none",
    }


def set_memory(domain: ET.Element, size: int, most: int | None) -> None:
    """So much memory at the next start, and room for ``most`` if that is more."""
    devices = domain.find("devices")
    for each in domain.findall("devices/memory[@model='virtio-mem']"):
        devices.remove(each)
    more = most is not None and most > size
    total = t.cast(int, most) if more else size
    for old in domain.findall("maxMemory"):
        domain.remove(old)
    for tag, value in (("memory", total), ("currentMemory", size)):
        _set_size(domain, tag, value)
    cpu = domain.find("cpu")
    if cpu is not None:
        for old in cpu.findall("numa"):
            cpu.remove(old)
    if not more:
        return
    _sub(domain, "maxMemory", str(total // _KIB), unit="KiB", slots="1")
    cpu = cpu if cpu is not None else _sub(domain, "cpu")
    cell = {"id": "0", "cpus": _all(_processors(domain)["vcpus_max"]), "memory": str(size // _KIB), "unit": "KiB"}
    _sub(_sub(cpu, "numa"), "cell", **cell)
    target = _sub(_sub(devices, "memory", model="virtio-mem"), "target")
    _sub(target, "size", str((total - size) // _KIB), unit="KiB")
    _sub(target, "node", "0")
    _sub(target, "block", str(BLOCK // _KIB), unit="KiB")
    _sub(target, "requested", "0", unit="KiB")


def _set_size(domain: ET.Element, tag: str, size: int) -> None:
    child = domain.find(tag)
    if child is None:
        child = _sub(domain, tag)
    child.text = str(size // _KIB)
    child.set("unit", "KiB")


class Memory(t.NamedTuple):
    """How a running machine comes to an amount of memory, both in bytes."""

    balloon: int
    requested: int


def memory_split(live: Model, size: int) -> Memory:
    """What the balloon leaves of the memory that it was started with, and what is added to that."""
    base = live["memory_base"]
    return Memory(min(size, base), max(0, size - base))


def memory_device(domain: ET.Element, requested: int) -> str | None:
    """The XML of the running domain's device of added memory that is to have so much, for
    ``virDomainUpdateDeviceFlags``; ``None`` where none is."""
    device = domain.find("devices/memory[@model='virtio-mem']")
    if device is None or _number(device, "target/requested") * _KIB == requested:
        return None
    found = device.find("target/requested")
    found.text, found.attrib["unit"] = str(requested // _KIB), "KiB"
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


class Card(t.NamedTuple):
    """A card's MAC address, and what its network carries where that is known: its guest is told."""

    mac: str
    mtu: t.Optional[int] = None


def card(network: str, given: Card) -> ET.Element:
    """A card on another network of a machine; it is told from those that others put there by its alias."""
    interface = ET.Element("interface", type="network")
    _sub(interface, "mac", address=given.mac)
    _sub(interface, "source", network=network)
    _sub(interface, "target", dev=guest_device(given.mac))
    _sub(interface, "model", type="virtio")
    if given.mtu:
        _sub(interface, "mtu", size=str(given.mtu))
    _sub(interface, "rom", enabled="no")
    _sub(interface, "alias", name=_CARD + network)
    return interface


def card_text(domain: ET.Element, network: str, new: bool = False) -> str | None:
    """The XML of the card on another network, for ``virDomainDetachDeviceFlags``, or, ``new``, for
    ``virDomainAttachDeviceFlags``."""
    found = _cards(domain).get(network)
    if found is None:
        return None
    shown = copy.deepcopy(found)
    for address in shown.findall("address") if new else ():
        # The slot that it will have after the next start may be another's now.
        shown.remove(address)
    return ET.tostring(shown, encoding="unicode")


def set_cards(domain: ET.Element, wanted: t.Mapping[str, Card]) -> None:
    """The machine's cards beside its first, by their networks. Those that are there keep theirs."""
    devices = domain.find("devices")
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
        # A bus of the old kind has 32 slots, of which some are the chip set's.
        return max(0, 28 - len(used))
    return len(_ports(domain) - {int(address.get("bus", "0"), 16) for address in used})


def add_ports(domain: ET.Element) -> None:
    """A port for each device, and some more, in a domain that is not defined yet."""
    devices = domain.find("devices")
    count = sum(
        len(devices.findall(path))
        for path in ("disk", "interface", "controller[@type='usb']", "rng", "memballoon", "memory")
    )
    _sub(devices, "controller", type="pci", index="0", model="pcie-root")
    # And the controller of the agent's channel
    for dummy in range(count + 1 + SPARE_PORTS):
        _sub(devices, "controller", type="pci", model="pcie-root-port")


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
    """What the machine tries to boot from, in this order. Its card's boot ROM, which takes time, is there only if it is
    used."""
    for kind, device in _bootable(domain, root).items():
        if device is None:
            continue
        for tag in ("boot", "rom") if kind == "network" else ("boot",):
            for old in device.findall(tag):
                device.remove(old)
        if kind in order:
            _sub(device, "boot", order=str(list(order).index(kind) + 1))
        elif kind == "network":
            _sub(device, "rom", enabled="no")


def read(domain: ET.Element, root: ET.Element | None) -> Model:
    """``vcpus vcpus_max vcpus_removable memory memory_max memory_base memory_ceiling balloon extra_networks free_ports
    boot``.

    ``memory`` is what it has, with ``memory_base`` of that from its start; ``memory_ceiling`` what it can have without
    another start; ``memory_max`` the same where memory can be added, else ``None``.
    """
    return {
        **_processors(domain),
        **_memory(domain),
        "extra_networks": sorted(_cards(domain)),
        "free_ports": free_ports(domain),
        "boot": _boot(domain, root),
    }
