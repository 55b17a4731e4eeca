# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's copy at the source: marked, so that nobody can start it; put back; released. And what the target gets of
it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata, portable
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain, Network
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import looking, offering, sleeping
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import Mark

FILE = "move.xml"
"""The definition that the machine has at the target, in its directory at the source while it is on offer."""


def _path(tree: ET.Element, depot: disk.Depot, uuid: str) -> str:
    return copies.shown(domain_xml.read(tree)["disk_path"] or depot.disk(uuid))


def mark(conn: Connect, depot: disk.Depot, domain: Domain, moving: Mark) -> None:
    """Say in the definition where the machine goes, and make it one that can't be started.

    A guest that runs goes on.
    """
    tree = observe.configured(domain)
    values = metadata.read(tree)
    if values is None:
        raise sleeping.foreign()
    kept = values["moving"]["autostart"] if values["moving"] else bool(domain.autostart())
    values["moving"] = {
        "generation": moving["generation"],
        "to": moving["to"],
        "attempt": moving["attempt"],
        "autostart": kept,
    }
    metadata.put(tree, values)
    portable.name_disk(tree, copies.hidden(_path(tree, depot, domain.UUIDString())))
    with translated("mark the machine as moving"):
        conn.defineXML(domain_xml.to_text(tree))
        if domain.autostart():
            domain.setAutostart(0)


def restore(conn: Connect, depot: disk.Depot, domain: Domain) -> bool:
    """Take the mark off, and let a guest go on that stands still because of the move.

    :returns: whether there was anything to be done.
    """
    uuid = domain.UUIDString()
    offering.withdraw(uuid)
    tree = observe.configured(domain)
    values = metadata.read(tree)
    if values is None:
        raise sleeping.foreign()
    moving = values["moving"]
    with translated("take the mark of a move off"):
        if moving:
            metadata.put(tree, {**values, "moving": None})
            portable.name_disk(tree, _path(tree, depot, uuid))
            conn.defineXML(domain_xml.to_text(tree))
            if moving["autostart"]:
                domain.setAutostart(1)
        stands = bool(domain.isActive()) and looking.paused_by_move(domain)
        if stands:
            domain.resume()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(depot.machine(uuid), FILE))
    return bool(moving) or stands


def definition(
    domain: Domain, source: str, target: str, site: str | None, generation: int, *, live: bool = False
) -> ET.Element:
    """The tree of the machine as it is to be at the target: unmarked, of its generation, in the target's depot.

    :param source: the source's depot. :param live: as it runs; otherwise as it is to be at its next start.
    """
    flags = (
        libvirt.VIR_DOMAIN_XML_SECURE
        | libvirt.VIR_DOMAIN_XML_MIGRATABLE
        | (0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE)
    )
    tree = domain_xml.parse(domain.XMLDesc(flags))
    portable.drop_implicit(tree)
    values = metadata.read(tree)
    if values is None:
        raise sleeping.foreign()
    domain_xml.put_metadata(tree, {**values, "moving": None, "generation": generation, "site": site or values["site"]})
    path = domain_xml.read(tree)["disk_path"]
    if path:
        portable.name_disk(tree, copies.shown(path))
    if source != target:
        portable.replace_prefix(tree, source, target)
    return tree


def release(depot: disk.Depot, conn: Connect, uuid: str, domain: Domain | None) -> None:
    """Remove the copy: a newer one is known to be elsewhere. The domain first, so that nothing is defined without its
    disk."""
    offering.withdraw(uuid)
    if domain is not None:
        mac = domain_xml.read(observe.configured(domain))["mac"]
        network = domain_xml.read(observe.configured(domain))["network"]
        with translated("remove the machine's copy here"):
            if domain.isActive():
                # It stands still: its guest is at the target already.
                domain.destroy()
            flags = (
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            )
            domain.undefineFlags(flags)
        forget_address(conn, network, mac)
    with translated("remove the machine's files"):
        disk.remove(depot, uuid)


def _network(conn: Connect, network: str | None) -> Network | None:
    try:
        return conn.networkLookupByName(network) if network else None
    except libvirt.libvirtError:
        return None


def forget_address(conn: Connect, network: str | None, mac: str | None) -> None:
    """No more address is kept here for a machine that has gone; a network without a DHCP server of its own has none."""
    found = _network(conn, network)
    if found is None or not mac:
        return
    tree = domain_xml.parse(found.XMLDesc(0))
    if any((host.get("mac") or "").lower() == mac.lower() for host in tree.iterfind("ip/dhcp/host")):
        _update(found, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, f"<host mac='{mac}'/>")


def can_lease(tree: ET.Element, address: str) -> bool:
    """Whether a network of libvirt's could lease an address: one of a subnet in which it has a DHCP server (pure).
    :param tree: the network's."""
    for ip in tree.iterfind("ip"):
        with contextlib.suppress(ValueError):
            own = ipaddress.ip_interface(f"{ip.get('address')}/{ip.get('prefix') or ip.get('netmask')}")
            if ip.find("dhcp") is not None and ipaddress.ip_address(address) in own.network:
                return True
    return False


def keep_address(conn: Connect, network: str | None, mac: str | None, address: str | None) -> None:
    """The network's DHCP server here gives the machine the address that it had, should it ask.

    Not where it never could: to be told, libvirt takes all rules of the network off and puts them there again, for half
    a second.
    """
    found = _network(conn, network)
    if found is None or not mac or not address or ":" in address:
        return
    tree = domain_xml.parse(found.XMLDesc(0))
    if not can_lease(tree, address):
        return
    known = {(host.get("mac") or "").lower(): host.get("ip") for host in tree.iterfind("ip/dhcp/host")}
    if known.get(mac.lower()) == address:
        return
    if mac.lower() in known:
        _update(found, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, f"<host mac='{mac}'/>")
    host = ET.Element("host", {"mac": mac, "ip": address})
    _update(found, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, domain_xml.to_text(host))


def _update(network: Network, command: int, xml: str) -> None:
    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG | (
        libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE if network.isActive() else 0
    )
    # An address that another has, say: the machine keeps it until its lease ends.
    with contextlib.suppress(libvirt.libvirtError):
        network.update(command, libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, xml, flags)
