# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt network with NAT and DHCP that machines join by default: what it is, what it should be, and the steps."""

from __future__ import annotations

import ipaddress
import re
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Network
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import connect, libvirt, translated

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,49}", re.ASCII)
_BRIDGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", re.ASCII)
LIVE = ("dhcp_start", "dhcp_end")
"""What libvirt changes while machines are on the network."""


class Wanted(t.TypedDict):
    """A network. ``address`` is the host's own on it, ``prefix`` the length of its prefix in bits."""

    name: str
    bridge: str
    address: str
    prefix: int
    dhcp_start: str
    dhcp_end: str


class Guest(t.NamedTuple):
    """A machine that runs on the network, and the host's end of its card."""

    machine: str
    device: str


class Plan(t.NamedTuple):
    """What is done. ``steps`` are ``define``, ``start``, ``autostart``, ``range``, ``restart``."""

    steps: t.List[str]
    restart_required: bool


def checked(given: t.Mapping[str, object]) -> Wanted:
    """See that a network can be (pure). :raises GridError: ``invalid_network``."""

    def refuse(why: str) -> t.NoReturn:
        raise GridError(
            "invalid_network",
            f"the network {given.get('name')!s:.50} can't be: {why}",
            remedy="Correct virtuoso_provider_network of this host",
        )

    for field, form in (("name", _NAME), ("bridge", _BRIDGE)):
        if not isinstance(given.get(field), str) or not form.fullmatch(str(given[field])):
            refuse(f"{given.get(field)!s:.50} is no {field}")
    try:
        own = ipaddress.IPv4Interface(f"{given['address']}/{given['prefix']}")
        first, last = (ipaddress.IPv4Address(str(given[field])) for field in LIVE)
    except (ValueError, KeyError) as exc:
        refuse(str(exc))
    if own.network.prefixlen > 30 or own.ip in (own.network.network_address, own.network.broadcast_address):
        refuse(f"{own} is no address for a host with others beside it")
    if not (first <= last and first in own.network and last in own.network):
        refuse(f"{first} to {last} is no range in {own.network}")
    return {
        "name": str(given["name"]),
        "bridge": str(given["bridge"]),
        "address": str(own.ip),
        "prefix": own.network.prefixlen,
        "dhcp_start": str(first),
        "dhcp_end": str(last),
    }


def read(definition: str) -> dict[str, object]:
    """A network's fields as :class:`Wanted` has them, from its XML (pure); those that it doesn't have are ``None``."""
    root = ET.fromstring(definition)
    bridge, ip, ranges = root.find("bridge"), root.find("ip"), root.findall("ip/dhcp/range")
    forward = root.find("forward")
    first = ranges[0] if len(ranges) == 1 else None
    found: dict[str, object] = {
        "name": root.findtext("name"),
        "bridge": bridge.get("name") if bridge is not None else None,
        "address": ip.get("address") if ip is not None else None,
        "prefix": _prefix(ip),
        "dhcp_start": first.get("start") if first is not None else None,
        "dhcp_end": first.get("end") if first is not None else None,
    }
    if forward is None or forward.get("mode") != "nat":
        found["forward"] = None if forward is None else forward.get("mode")
    return found


def _prefix(ip: ET.Element | None) -> int | None:
    if ip is None:
        return None
    if ip.get("prefix"):
        return int(str(ip.get("prefix")))
    return ipaddress.IPv4Network(f"0.0.0.0/{ip.get('netmask')}").prefixlen if ip.get("netmask") else None


def text(wanted: Wanted) -> str:
    """The XML of a network (pure), see https://libvirt.org/formatnetwork.html."""
    root = ET.Element("network")
    ET.SubElement(root, "name").text = wanted["name"]
    ET.SubElement(root, "forward", mode="nat")
    ET.SubElement(root, "bridge", name=wanted["bridge"], stp="off", delay="0")
    ip = ET.SubElement(root, "ip", address=wanted["address"], prefix=str(wanted["prefix"]))
    ET.SubElement(ET.SubElement(ip, "dhcp"), "range", start=wanted["dhcp_start"], end=wanted["dhcp_end"])
    return ET.tostring(root, encoding="unicode")


def decide(
    wanted: Wanted,
    defined: t.Mapping[str, object] | None,
    active: t.Mapping[str, object] | None,
    autostart: bool,
    guests: int,
    restart: bool,
) -> Plan:
    """What to do (pure).

    :param defined: the network as libvirt will have it at its next start; ``None`` where there is none.
    :param active: the network as it is now; ``None`` where it isn't.
    :param guests: how many machines run on it.
    :param restart: whether it may be restarted although machines are on it.
    """
    steps = []
    differs = _differing(wanted, active) if active is not None else set()
    only_range = bool(differs) and differs <= set(LIVE)
    waits = set() if defined is None else _differing(wanted, defined)
    # A range is changed in both at once, unless another change waits in the definition.
    if defined is None or (waits and not (only_range and waits <= set(LIVE))):
        steps.append("define")
    if active is None:
        steps.append("start")
    elif only_range:
        steps.append("range")
    elif differs and (restart or not guests):
        steps.append("restart")
    if not autostart:
        steps.append("autostart")
    return Plan(steps, bool(differs) and not only_range and "restart" not in steps)


def _differing(wanted: Wanted, found: t.Mapping[str, object]) -> set[str]:
    known = dict(wanted)
    return {key for key in {*known, *found} if known.get(key) != found.get(key)}


def guests_of(definitions: t.Iterable[str], name: str) -> list[Guest]:
    """The machines that run on a network, from the live XML of all domains (pure)."""
    found = []
    for definition in definitions:
        root = ET.fromstring(definition)
        for card in root.findall("devices/interface"):
            source, target = card.find("source"), card.find("target")
            if source is not None and source.get("network") == name:
                device = target.get("dev") if target is not None else None
                found.append(Guest(root.findtext("name") or "", device or ""))
    return found


def bring(uri: str, given: t.Mapping[str, object], restart: bool, check_mode: bool) -> dict[str, object]:
    """Have the network as it is wanted; what the module ``provider_network`` returns.

    :raises GridError: ``invalid_network``, and libvirt's.
    """
    wanted = checked(given)
    with connect(uri) as hypervisor, translated("look at the network"):
        network = _lookup(hypervisor.conn, wanted["name"])
        defined = read(network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)) if network is not None else None
        active = read(network.XMLDesc(0)) if network is not None and network.isActive() else None
        guests = guests_of(_running(hypervisor.conn), wanted["name"]) if active is not None else []
        plan = decide(
            wanted, defined, active, bool(network.autostart()) if network is not None else False, len(guests), restart
        )
        if not check_mode:
            _do(hypervisor.conn, network, wanted, plan, guests)
    names = sorted({guest.machine for guest in guests})
    result: dict[str, object] = {
        "changed": bool(plan.steps),
        "actions": plan.steps,
        "restart_required": plan.restart_required,
        "machines": names,
        "diff": diff(f"network {wanted['name']}", active or defined, t.cast("t.Mapping[str, object]", wanted)),
    }
    if plan.restart_required:
        result["warnings"] = [
            f"network {wanted['name']}: the change is kept for its next start, because that cuts {', '.join(names)} for"
            " a moment, and gives machines other addresses. Run again with -e virtuoso_provider_network_restart=true"
            " when they may be"
        ]
    return result


def _lookup(conn: Connect, name: str) -> Network | None:
    try:
        return conn.networkLookupByName(name)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
            return None
        raise


def _running(conn: Connect) -> list[str]:
    return [domain.XMLDesc(0) for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)]


def _do(conn: Connect, network: Network | None, wanted: Wanted, plan: Plan, guests: t.Sequence[Guest]) -> None:
    if "define" in plan.steps:
        # The same network: a definition without the uuid would be another of the same name.
        network = conn.networkDefineXML(_same(text(wanted), network))
    if network is None:
        return
    if "range" in plan.steps:
        _move_range(network, wanted, "define" not in plan.steps)
    if "restart" in plan.steps:
        network.destroy()
    if "start" in plan.steps or "restart" in plan.steps:
        _create(network)
    if "restart" in plan.steps:
        for guest in guests:
            # Their cards hung on the bridge that is gone.
            command(["ip", "link", "set", "dev", guest.device, "master", wanted["bridge"]], timeout=10)
    if "autostart" in plan.steps:
        network.setAutostart(True)


def _create(network: Network) -> None:
    try:
        network.create()
    except libvirt.libvirtError as exc:
        # libvirt starts no network whose bridge or addresses another one has.
        raise GridError(
            "invalid_network",
            f"libvirt can't start the network {network.name()}: {str(exc).strip()}",
            remedy="Where another network has the bridge or the addresses, perhaps an older one of this host (virsh"
            " net-list --all), remove that or give virtuoso_provider_network others; then run again",
        ) from exc


def _same(definition: str, network: Network | None) -> str:
    if network is None:
        return definition
    root = ET.fromstring(definition)
    ET.SubElement(root, "uuid").text = network.UUIDString()
    return ET.tostring(root, encoding="unicode")


def _move_range(network: Network, wanted: Wanted, for_good: bool) -> None:
    """Give DHCP another range, now and where it is ``for_good`` for the next start. Leases that were given stay."""
    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
    if for_good:
        flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    section = libvirt.VIR_NETWORK_SECTION_IP_DHCP_RANGE
    for old in ET.fromstring(network.XMLDesc(0)).findall("ip/dhcp/range"):
        network.update(
            libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, section, 0, ET.tostring(old, encoding="unicode"), flags
        )
    new = f"<range start='{wanted['dhcp_start']}' end='{wanted['dhcp_end']}'/>"
    network.update(libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, section, 0, new, flags)
