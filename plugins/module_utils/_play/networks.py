# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play tells the networks of machines, and what it sees of the networks (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import card_mac, mac_address
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import cable
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.model import bridge_name
from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Fields, MachineEntry, Order

EVPN = "evpn"

WHERE_TO_LOOK = {
    "ssh": "journalctl -u virtuoso-overlay-ssh@{device}",
    "vxlan": "ip -details link show {device}, and that UDP port 4789 passes both ways",
    "wireguard": "journalctl -u virtuoso-overlay-wireguard, and wg show for the last handshake",
    EVPN: "journalctl -u virtuoso-overlay-frr, and that TCP port 179 passes between the network's home and its hosts",
}
"""Where a link's transport says why it is not up."""


class Card(t.TypedDict):
    """A machine's network card, as the module ``overlay`` takes it."""

    provider: str
    network: str
    mac: str


class Guest(t.TypedDict):
    """A machine, as the module ``lease`` takes it.

    :ivar address: the one that was ordered.
    """

    uuid: str
    name: str
    network: str
    mac: str
    address: object


class HomeShare(t.TypedDict):
    """Machines on a network that is tied to a home's LAN.

    :ivar dhcp: whether the LAN's DHCP server is the one that the role ``home`` made.
    """

    home: str
    network: str
    dhcp: bool
    machines: list[Guest]


class Attachments(t.TypedDict):
    """Machines as the hosts of their networks have to know them."""

    cards: list[Card]
    homes: list[HomeShare]


class HomeNetwork(t.TypedDict, total=False):
    """An entry of ``virtuoso_home_networks``; the fields that are looked at here."""

    network: str
    dhcp: Fields


class Interfaces(t.TypedDict):
    """A network's own interfaces on each of its hosts: its bridge, and the ends of the cable to a home's LAN."""

    bridge: str
    cable: list[str]


class Lacks(t.TypedDict):
    """What hosts still lack of their networks, each as a text for people.

    :ivar networks: networks that a host doesn't have.
    :ivar links: links that are not up, with where to look.
    :ivar peers: hosts of a network that BGP has not announced.
    """

    networks: list[str]
    links: list[str]
    peers: list[str]


def machine_networks(
    machines: t.Mapping[str, t.Sequence[MachineEntry] | None],
    known: t.Sequence[Order] = (),
    homes: t.Mapping[str, t.Sequence[HomeNetwork] | None] | None = None,
) -> Attachments:
    """What the hosts of networks have to know of machines.

    :param machines: entries of the module ``machine``, by provider.
    :param known: ``uuid`` and ``mac`` of machines: one that has moved keeps the address that it had.
    :param homes: ``virtuoso_home_networks`` of each home.
    """
    macs = {row.get("uuid"): mac for row in known for mac in (row.get("mac"),) if mac}
    everyone = [
        (provider, entry, _mac(entry, macs))
        for provider, entries in machines.items()
        for entry in entries or ()
        if entry.get("network") and entry.get("uuid")
    ]
    shares: list[HomeShare] = []
    for home, networks in (homes or {}).items():
        for network in networks or ():
            name = network["network"]
            mine = [_guest(entry, mac) for dummy, entry, mac in everyone if entry["network"] == name]
            share: HomeShare = {"home": home, "network": name, "dhcp": bool(network.get("dhcp")), "machines": mine}
            shares += [share] if mine else []
    return {
        "cards": [card for provider, entry, mac in everyone for card in _cards(provider, entry, mac)],
        "homes": shares,
    }


def _mac(machine: MachineEntry, macs: t.Mapping[str | None, str]) -> str:
    """The MAC address of the machine's first card: its own, or the one that it will have."""
    own = macs.get(machine["uuid"])
    return (own or mac_address(machine["network"], machine.get("site") or "site", machine["uuid"])).lower()


def _cards(provider: str, machine: MachineEntry, mac: str) -> list[Card]:
    addresses = {
        machine["network"]: mac,
        **{network: card_mac(network, mac) for network in machine.get("extra_networks") or ()},
    }
    return [{"provider": provider, "network": network, "mac": address} for network, address in addresses.items()]


def _guest(machine: MachineEntry, mac: str) -> Guest:
    return {
        "uuid": machine["uuid"],
        "name": machine["name"],
        "network": machine["network"],
        "mac": mac,
        "address": (machine.get("address") or {}).get("ip"),
    }


def network_interfaces(network: str) -> Interfaces:
    """The names of a network's own interfaces."""
    return {"bridge": bridge_name(network), "cable": cable(network)}


def overlay_lacks(
    infos: t.Mapping[str, t.Mapping[str, t.Any] | None],
    networks: t.Sequence[t.Mapping[str, t.Any]] = (),
    hosts: t.Collection[str] | None = None,
) -> Lacks:
    """What hosts still lack of their networks.

    :param infos: results of the module ``overlay_info``, by host.
    :param networks: ``virtuoso_networks``, where the networks themselves may be missing. One without ``hosts`` is for
        all of them.
    :param hosts: the hosts that BGP must have announced. All of a network's where it is left out.
    """
    found: Lacks = {"networks": [], "links": [], "peers": []}
    for host, info in infos.items():
        there = {network["name"] for network in ((info or {}).get("part") or {}).get("networks") or ()}
        found["networks"] += [
            f"{entry['name']} on {host}"
            for entry in networks
            if host in (entry.get("hosts") or infos) and entry["name"] not in there
        ]
        for link in (info or {}).get("links") or ():
            if link["state"] != "up":
                look = WHERE_TO_LOOK[link["transport"]].format(device=link["device"])
                found["links"].append(f"{link['device']} to {link['peer']} ({link['transport']}; see {look})")
            if link["transport"] == EVPN:
                heard = {vtep["address"] for vtep in link["vteps"]}
                found["peers"] += [
                    f"{peer['name']} of network {link['network']}"
                    for peer in link["peers"]
                    if peer["address"] not in heard and (hosts is None or peer["name"] in hosts)
                ]
    return found
