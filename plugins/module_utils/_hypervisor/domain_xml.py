# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine as libvirt's domain XML, and back (pure).

A domain is written anew only when it is defined for the first time. Later changes edit the tree that libvirt has, so
that what others added, and this collection doesn't manage, stays.
"""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import disk_io, hardware, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import (
    CpuLimit,
    Display,
    DomainModel,
    Export,
    Metadata,
    NewDomain,
)

FIELDS = (
    *("vcpus", "vcpus_max", "memory", "memory_max", "network", "extra_networks", "boot", "display", "display_password"),
    *("cpu_shares", "cpu_limit", "disk_io", "description"),
)
"""The fields that this collection manages in a domain beside its metadata, in the order in which they are edited."""

ROOT_DISK = "vda"
SEED_DISK = "vdb"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
LOOPBACK = "127.0.0.1"
guest_device = hardware.guest_device
_sub = hardware.sub


def _backing(disk: ET.Element, layers: t.Sequence[str], pages: Export | None = None) -> None:
    """Name the whole chain below a disk, nearest first, so that QEMU doesn't follow a layer's own backing file.

    :param pages: the export that the disk pages from instead.
    """
    if pages is not None:
        disk = _sub(disk, "backingStore", type="network")
        _sub(disk, "format", type="raw")
        source = _sub(disk, "source", protocol="nbd", name=pages["export"], tls="yes")
        _sub(source, "host", name=pages["host"], port=str(pages["port"]))
        # Wait for a pager that is started again; libvirt before 10 drops this, and the guest pauses.
        _sub(source, "reconnect", delay="10")
    for path in layers:
        disk = _sub(disk, "backingStore", type="file")
        _sub(disk, "format", type="qcow2")
        # Many machines share a layer: libvirt must not change its owner for one of them.
        _sub(_sub(disk, "source", file=path), "seclabel", model="dac", relabel="no")
    _sub(disk, "backingStore")


def _disk(
    devices: ET.Element, kind: str, path: str, target: str, layers: t.Sequence[str] = (), pages: Export | None = None
) -> None:
    disk = _sub(devices, "disk", type="file", device="disk")
    driver = _sub(disk, "driver", name="qemu", type=kind)
    _sub(disk, "source", file=path)
    _backing(disk, layers, pages)
    _sub(disk, "target", dev=target, bus="virtio")
    if target == SEED_DISK:
        _sub(disk, "readonly")
        return
    # On a full host the guest pauses and can be resumed; otherwise it would see a broken disk.
    driver.attrib.update(discard="unmap", error_policy="stop")


def _graphics(devices: ET.Element, password: str | None) -> None:
    graphics = _sub(devices, "graphics", type="vnc", port="-1", autoport="yes", listen=LOOPBACK)
    if password:
        graphics.set("passwd", password)
    _sub(graphics, "listen", type="address", address=LOOPBACK)
    # Standard VGA, so that the BIOS and a text console show as well
    _sub(_sub(devices, "video"), "model", type="vga", vram="16384", heads="1", primary="yes")


def _platform(domain: ET.Element, wanted: NewDomain) -> None:
    boot = _sub(domain, "os")
    _sub(boot, "type", "hvm", arch=wanted.get("architecture") or "x86_64", machine=wanted["machine_type"])
    features = _sub(domain, "features")
    for name in ("acpi", "apic"):
        _sub(features, name)
    if wanted["virtualization"] == "kvm":
        _sub(domain, "cpu", mode="host-model", check="partial")
    else:
        cpu = _sub(domain, "cpu", mode="custom", match="exact", check="none")
        _sub(cpu, "model", "qemu64", fallback="forbid")
    clock = _sub(domain, "clock", offset="utc")
    _sub(clock, "timer", name="rtc", tickpolicy="catchup")
    _sub(clock, "timer", name="pit", tickpolicy="delay")
    _sub(clock, "timer", name="hpet", present="no")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _sub(domain, event, action)
    # Nobody could wake a guest that suspends itself.
    power = _sub(domain, "pm")
    _sub(power, "suspend-to-mem", enabled="no")
    _sub(power, "suspend-to-disk", enabled="no")


def _devices(domain: ET.Element, wanted: NewDomain) -> None:
    devices = _sub(domain, "devices")
    _disk(devices, "qcow2", wanted["disk_path"], ROOT_DISK, wanted["layers"], wanted.get("pages"))
    _disk(devices, "raw", wanted["seed_path"], SEED_DISK)
    interface = _sub(devices, "interface", type="network")
    _sub(interface, "mac", address=wanted["mac"])
    _sub(interface, "source", network=wanted["network"])
    _sub(interface, "target", dev=guest_device(wanted["mac"]))
    _sub(interface, "model", type="virtio")
    if wanted.get("mtu"):
        _sub(interface, "mtu", size=str(wanted["mtu"]))
    hardware.set_cards(domain, wanted.get("cards") or {})
    hardware.set_boot(domain, _root(domain), wanted.get("boot") or ["disk"])
    _sub(devices, "controller", type="usb", model="qemu-xhci")
    _sub(_sub(devices, "serial", type="pty"), "target", port="0")
    _sub(_sub(devices, "console", type="pty"), "target", type="serial", port="0")
    channel = _sub(devices, "channel", type="unix")
    _sub(channel, "target", type="virtio", name=AGENT_CHANNEL)
    if wanted["display"] == "vnc":
        _graphics(devices, wanted.get("display_password"))
    rng = _sub(devices, "rng", model="virtio")
    _sub(rng, "backend", "/dev/urandom", model="random")
    _sub(devices, "memballoon", model="virtio")


def title(values: Metadata) -> str:
    """A domain's title, which ``virsh list --title`` shows."""
    return metadata.clean(f"{values['name']} ({values['owner']})")


def build(wanted: NewDomain, values: Metadata) -> ET.Element:
    """The ``<domain>`` element of a machine that is not defined yet.

    :param values: its metadata.
    """
    domain = ET.Element("domain", type=wanted["virtualization"])
    _sub(domain, "name", values["name"])
    _sub(domain, "uuid", values["uuid"])
    _sub(domain, "title", title(values))
    metadata.put(domain, values)
    _set_description(domain, wanted.get("description"))
    hardware.set_vcpus(domain, wanted["vcpus"], wanted.get("vcpus_max") or hardware.default_vcpus_max(wanted["vcpus"]))
    if wanted.get("cpu_shares") is not None:
        _sub(_sub(domain, "cputune"), "shares", str(wanted["cpu_shares"]))
    if wanted.get("cpu_limit") is not None:
        _set_limit(domain, wanted["cpu_limit"])
    _platform(domain, wanted)
    _devices(domain, wanted)
    hardware.set_memory(domain, wanted["memory"], wanted.get("memory_max"))
    if "q35" in wanted["machine_type"]:
        hardware.add_ports(domain)
    disk_io.put(_root(domain), wanted.get("disk_io"))
    return domain


def parse(text: str) -> ET.Element:
    """The element of an XML text that libvirt wrote."""
    return ET.fromstring(text)


def to_text(domain: ET.Element) -> str:
    """The text for libvirt."""
    return ET.tostring(domain, encoding="unicode")


def _interface(domain: ET.Element) -> ET.Element | None:
    """The machine's first card; libvirt keeps their order."""
    return domain.find("devices/interface")


def card_device(domain: ET.Element) -> str | None:
    """The host's end of the first card of a running machine: a network device."""
    interface = _interface(domain)
    return _attribute(interface.find("target"), "dev") if interface is not None else None


def _vnc(domain: ET.Element) -> ET.Element | None:
    return domain.find("devices/graphics[@type='vnc']")


def _attribute(element: ET.Element | None, name: str) -> str | None:
    return None if element is None else element.get(name)


def _root(domain: ET.Element) -> ET.Element | None:
    return domain.find(f"devices/disk/target[@dev='{ROOT_DISK}']/..")


def _pages(domain: ET.Element) -> Export | None:
    disk = _root(domain)
    source = disk.find("backingStore/source[@protocol='nbd']") if disk is not None else None
    host = source.find("host") if source is not None else None
    if source is None or host is None:
        return None
    return {"host": host.get("name", ""), "port": int(host.get("port", "0")), "export": source.get("name", "")}


def mirror(domain: ET.Element) -> bool | None:
    """Whether the copy of a running machine's disk to another file has caught up; ``None`` where no copy runs."""
    disk = _root(domain)
    found = disk.find("mirror") if disk is not None else None
    return None if found is None else found.get("ready") == "yes"


def copy_target(path: str, layers: t.Sequence[str], pages: Export | None) -> str:
    """The XML of the file that a running machine's disk is copied to, for ``virDomainBlockCopy``."""
    disk = ET.Element("disk", type="file")
    _sub(disk, "driver", type="qcow2")
    _sub(disk, "source", file=path)
    _backing(disk, layers, pages)
    return ET.tostring(disk, encoding="unicode")


def set_disk(domain: ET.Element, path: str, layers: t.Sequence[str], pages: Export | None) -> None:
    """Name another file, on another chain, as the root disk."""
    disk = _root(domain)
    if disk is None:
        return
    hardware.child(disk, "source").set("file", path)
    for old in disk.findall("backingStore"):
        disk.remove(old)
    _backing(disk, layers, pages)


def read(domain: ET.Element) -> DomainModel:
    """A domain as libvirt has it."""
    interface = _interface(domain)
    vnc = _vnc(domain)
    shares = domain.findtext("cputune/shares")
    root = _root(domain)
    return {
        **hardware.read(domain, root),
        "network": _attribute(interface.find("source"), "network") if interface is not None else None,
        "display": "none" if vnc is None else "vnc",
        "display_password": _attribute(vnc, "passwd"),
        "cpu_shares": int(shares) if shares else None,
        "cpu_limit": _limit(domain),
        "disk_io": disk_io.read(root),
        "description": domain.findtext("description") or None,
        "mac": _attribute(interface.find("mac"), "address") if interface is not None else None,
        "machine_type": _attribute(domain.find("os/type"), "machine"),
        "virtualization": domain.get("type"),
        "disk_path": _attribute(domain.find(f"devices/disk/target[@dev='{ROOT_DISK}']/../source"), "file"),
        "pages": _pages(domain),
    }


def chain(domain: ET.Element) -> list[str]:
    """The files that the domain names below its disk, the nearest first; empty where the disk's own file says so."""
    disk = _root(domain)
    sources = disk.findall(".//backingStore/source") if disk is not None else []
    return [source.get("file", "") for source in sources]


def set_chain(domain: ET.Element, layers: t.Sequence[str] | None) -> None:
    """Name the files below the disk, the nearest first; ``None`` leaves that to the disk's own file."""
    disk = _root(domain)
    if disk is None:
        return
    for old in disk.findall("backingStore"):
        disk.remove(old)
    if layers is not None:
        _backing(disk, layers)


def _limit(domain: ET.Element) -> CpuLimit | None:
    """A period alone limits nothing, nor does a quota below 1. libvirt has both where a limit was lifted."""
    quota = int(domain.findtext("cputune/quota", "0"))
    # libvirt's own default period
    return {"period": int(domain.findtext("cputune/period", "100000")), "quota": quota} if quota > 0 else None


def _set_limit(domain: ET.Element, limit: CpuLimit | None) -> None:
    if limit is not None:
        _set_text(domain, "cputune/period", str(limit["period"]))
        _set_text(domain, "cputune/quota", str(limit["quota"]))
        return
    for tune in domain.findall("cputune"):
        for old in (*tune.findall("period"), *tune.findall("quota")):
            tune.remove(old)


def _set_text(domain: ET.Element, path: str, text: str) -> None:
    element = domain
    for tag in path.split("/"):
        element = hardware.child(element, tag)
    element.text = text


def _memory_max(domain: ET.Element, most: int | None) -> None:
    hardware.set_memory(domain, read(domain)["memory"], most)


def _memory(domain: ET.Element, size: int) -> None:
    hardware.set_memory(domain, size, read(domain)["memory_max"])


def _vcpus_max(domain: ET.Element, most: int) -> None:
    hardware.set_vcpus(domain, read(domain)["vcpus"], most)


def _set_description(domain: ET.Element, text: str | None) -> None:
    for old in domain.findall("description"):
        domain.remove(old)
    if text:
        _set_text(domain, "description", text)


def _set_network(domain: ET.Element, network: str) -> None:
    interface = _interface(domain)
    if interface is None:
        return
    source = interface.find("source")
    if source is not None:
        source.attrib.clear()
        source.set("network", network)
        interface.set("type", "network")
    mac = _attribute(interface.find("mac"), "address")
    if mac is not None and interface.find("target") is None:
        _sub(interface, "target", dev=guest_device(mac))


def _set_display(domain: ET.Element, display: str) -> None:
    devices = hardware.child(domain, "devices")
    for tag in ("graphics", "video"):
        for old in devices.findall(tag):
            devices.remove(old)
    if display == "vnc":
        _graphics(devices, None)


def _set_password(domain: ET.Element, password: str) -> None:
    vnc = _vnc(domain)
    if vnc is not None:
        vnc.set("passwd", password)


# Any, because each takes the value of its own field
_SETTERS: dict[str, t.Callable[[ET.Element, t.Any], None]] = {
    "vcpus": hardware.set_vcpus,
    "vcpus_max": _vcpus_max,
    "memory": _memory,
    "memory_max": _memory_max,
    "network": _set_network,
    "extra_networks": hardware.set_cards,
    "boot": lambda domain, order: hardware.set_boot(domain, _root(domain), order),
    "display": _set_display,
    "display_password": _set_password,
    "cpu_shares": lambda domain, shares: _set_text(domain, "cputune/shares", str(shares)),
    "cpu_limit": _set_limit,
    "disk_io": lambda domain, limits: disk_io.put(_root(domain), limits),
    "description": _set_description,
}


def edit(domain: ET.Element, changes: t.Mapping[str, object]) -> None:
    """Change the given :data:`FIELDS` in a ``<domain>`` element and nothing else.

    :param changes: values as :func:`read` has them; those of ``extra_networks`` are :class:`records.Card` by network.
    """
    for field in FIELDS:
        if field in changes:
            _SETTERS[field](domain, changes[field])


def put_metadata(domain: ET.Element, values: Metadata) -> None:
    """Set the machine's metadata and the title made of it."""
    metadata.put(domain, values)
    _set_text(domain, "title", title(values))


def graphics_with_password(domain: ET.Element, password: str) -> str:
    """The XML of a running domain's display with another password, for ``virDomainUpdateDeviceFlags``."""
    _set_password(domain, password)
    display = _vnc(domain)
    if display is None:
        raise ValueError("the domain has no display")
    return ET.tostring(display, encoding="unicode")


def display_of(domain: ET.Element) -> Display:
    """A domain's display."""
    vnc = _vnc(domain)
    if vnc is None:
        return {"type": "none", "host": None, "port": None}
    port = int(vnc.get("port", "-1"))
    return {"type": "vnc", "host": vnc.get("listen", LOOPBACK), "port": port if port > 0 else None}


def agent_connected(domain: ET.Element) -> bool:
    """Whether a running guest's agent has opened its channel."""
    return any(
        target.get("name") == AGENT_CHANNEL and target.get("state") == "connected"
        for target in domain.findall("devices/channel/target")
    )
