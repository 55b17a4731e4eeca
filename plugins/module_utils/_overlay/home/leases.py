# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reservations in a home's DHCP server, which is dnsmasq, and the leases and neighbours seen there (pure)."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import check_uuid
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import check_text
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Reservation:
    """A machine's reservation in a home's DHCP server. Without an address the server chooses one and keeps it."""

    uuid: str
    name: str
    mac: str
    address: t.Optional[str] = None

    @property
    def line(self) -> str:
        """The machine's line for dnsmasq (``dhcp-host``). It matches the MAC address only: client ids may change."""
        return ",".join([self.mac, "id:*", *([self.address] if self.address else []), self.name]) + "\n"


@dataclasses.dataclass(frozen=True)
class Lease:
    """An address in use. ``source``: ``lease`` of the DHCP server, or ``neighbour`` seen by the kernel."""

    mac: str
    address: str
    source: str
    name: t.Optional[str] = None


def parse_reservation(entry: object, subnet: ipaddress.IPv4Network | None) -> Reservation:
    """Check an entry ``{uuid, name, mac, address}`` of the module ``lease``.

    :param subnet: of the home's network, if it is known.
    :raises GridError: ``invalid_...``, ``address_outside``.
    """
    if not isinstance(entry, t.Mapping):
        raise GridError(
            "invalid_order", f"{shorten(entry)} is not a machine", remedy="Give a mapping with uuid, name and mac"
        )
    uuid, name = check_uuid(entry.get("uuid")), check_text("name", entry.get("name"))
    mac = str(entry.get("mac") or "").lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise GridError(
            "invalid_mac",
            f"{shorten(entry.get('mac'))} is not the MAC address of a machine",
            remedy="Give it as 02:00:5e:00:53:01",
        )
    return Reservation(uuid, name, mac, _address(entry.get("address"), subnet))


def _address(value: object, subnet: ipaddress.IPv4Network | None) -> str | None:
    if value in (None, ""):
        return None
    try:
        address = ipaddress.IPv4Interface(str(value)).ip
    except ValueError as exc:
        raise GridError(
            "invalid_address", f"{shorten(value)} is not an IPv4 address", remedy="Give it as 192.0.2.7"
        ) from exc
    if subnet is not None and (address not in subnet or address in (subnet.network_address, subnet.broadcast_address)):
        raise GridError(
            "address_outside",
            f"{address} is not an address for a machine on {subnet}",
            remedy="Give one of that network, or leave it out",
        )
    return str(address)


def parse_line(uuid: str, text: str) -> Reservation | None:
    """Read a reservation from its file; ``None`` where we didn't write it."""
    fields = text.strip().split(",")
    if len(fields) not in (3, 4) or fields[1] != "id:*":
        return None
    return Reservation(uuid, fields[-1], fields[0], fields[2] if len(fields) == 4 else None)


def decide(wanted: Reservation, there: t.Mapping[str, Reservation], own: str | None) -> list[str]:
    """The action that a machine needs: ``reserve``, ``change reservation``, or none.

    :param there: the reservations of all machines, by uuid.
    :param own: the home's own address on the network.
    :raises GridError: ``address_taken``, ``name_taken``, ``mac_taken``.
    """
    now = there.get(wanted.uuid)
    if now == wanted:
        return []
    for other in there.values():
        if other.uuid == wanted.uuid:
            continue
        for what, mine, its in (
            ("address", wanted.address, other.address),
            ("name", wanted.name, other.name),
            ("mac", wanted.mac, other.mac),
        ):
            if mine is not None and mine == its:
                remedy = "Give another, or release that machine's first (virtuoso.grid.lease with state=absent)"
                raise GridError(f"{what}_taken", f"{mine} is the machine {other.name}'s ({other.uuid})", remedy=remedy)
    if own is not None and wanted.address == own:
        raise GridError("address_taken", f"{own} is the home's own address", remedy="Give another, or leave it out")
    return ["change reservation"] if now else ["reserve"]


def parse_leases(text: str) -> list[Lease]:
    """Read dnsmasq's file of leases: ``expiry mac address name client-id`` on each line. Names come from guests, so
    they are checked."""
    found = []
    for fields in (line.split() for line in text.splitlines()):
        if len(fields) >= 4 and fields[0].isdigit() and _MAC.fullmatch(fields[1].lower()):
            name = fields[3] if re.fullmatch(r"[A-Za-z0-9-]{1,63}", fields[3], re.ASCII) else None
            found += [Lease(fields[1].lower(), fields[2], "lease", name)] if _is_address(fields[2]) else []
    return found


def parse_neighbours(entries: t.Iterable[t.Mapping[str, t.Any]]) -> list[Lease]:
    """Read the output of ``ip -j neigh``: machines whose address comes from elsewhere and that have talked to the
    home."""
    return [
        Lease(str(entry["lladdr"]).lower(), str(entry["dst"]), "neighbour")
        for entry in entries
        if entry.get("lladdr")
        and _is_address(str(entry.get("dst")))
        and not {"FAILED", "INCOMPLETE"} & set(entry.get("state") or ())
    ]


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)


def by_mac(leases: t.Iterable[Lease]) -> dict[str, Lease]:
    """The lease of each MAC address; one of the DHCP server is preferred to a neighbour."""
    found: dict[str, Lease] = {}
    for lease in leases:
        if lease.mac not in found or (found[lease.mac].source, lease.source) == ("neighbour", "lease"):
            found[lease.mac] = lease
    return found
