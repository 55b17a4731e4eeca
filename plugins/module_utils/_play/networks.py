# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play tells the networks of machines, and what it sees of the networks (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import mac_address
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import cable
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.guests import overlay_machines
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.model import bridge_name
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.phases import overlay_plan
from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Endpoint, Fields, MachineEntry, Order

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


class OverlayHost(Endpoint, total=False):
    """A host that networks are planned for. One without a ``part`` could not be reached: what it has stays.

    :ivar probe: what the module ``overlay_probe`` found.
    :ivar part: what the host has now.
    :ivar machines: what the module ``machine_info`` returned; ``None`` where libvirt didn't answer, or there is none.
    """

    probe: Fields
    part: dict[str, t.Any]
    machines: list[dict[str, t.Any]] | None


class Lacks(t.TypedDict):
    """What hosts still lack of their networks, each as a text for people.

    :ivar networks: networks that a host doesn't have.
    :ivar links: links that are not up, with where to look.
    :ivar peers: hosts of a network that BGP has not told of.
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
    macs = {row.get("uuid"): row.get("mac") for row in known if row.get("mac")}
    everyone = [machine for entries in machines.values() for machine in entries or ()]
    shares: list[HomeShare] = []
    for home, networks in (homes or {}).items():
        for network in networks or ():
            name = network["network"]
            mine = [_guest(each, macs) for each in everyone if each.get("network") == name and each.get("uuid")]
            share: HomeShare = {"home": home, "network": name, "dhcp": bool(network.get("dhcp")), "machines": mine}
            shares += [share] if mine else []
    return {
        "cards": t.cast(
            "list[Card]", overlay_machines({name: entries or () for name, entries in machines.items()}, known)
        ),
        "homes": shares,
    }


def _guest(machine: MachineEntry, macs: t.Mapping[str | None, str | None]) -> Guest:
    own = macs.get(machine["uuid"]) or mac_address(machine["network"], machine.get("site") or "site", machine["uuid"])
    return {
        "uuid": machine["uuid"],
        "name": machine["name"],
        "network": machine["network"],
        "mac": own,
        "address": (machine.get("address") or {}).get("ip"),
    }


def network_interfaces(network: str) -> Interfaces:
    """The names of a network's own interfaces."""
    return {"bridge": bridge_name(network), "cable": cable(network)}


def plan_networks(
    networks: t.Sequence[object], hosts: t.Mapping[str, OverlayHost], known_keys: t.Mapping[str, str] | None = None
) -> dict[str, t.Any]:
    """What each host is to have of the networks.

    :param networks: ``virtuoso_networks``.
    :param hosts: all hosts of the grid, by name.
    :param known_keys: the hosts' SSH host keys as the grid knows them.
    :returns: ``phases``, each a part by host; ``links``, each with the reason for its transport; ``networks`` with
        their MTU; ``rows``, the links for the report. Where the networks can't be made: ``failed``, ``msg`` and
        ``failure``, for the report.
    """
    reached = {name: host for name, host in hosts.items() if "part" in host}
    try:
        plan = overlay_plan(
            networks,
            {
                name: {**{key: host.get(key) for key in ("address", "port", "site")}, "reached": name in reached}
                for name, host in hosts.items()
            },
            {name: host.get("probe") or {} for name, host in reached.items()},
            {name: host["part"] for name, host in reached.items()},
            [
                {**{key: machine.get(key) for key in ("network", "mac", "name")}, "provider": name}
                for name, host in reached.items()
                for machine in _machines(host)
                if machine.get("mac")
            ],
            known_keys,
        )
    except GridError as exc:
        return {"name": exc.object or "overlay", "changed": False, **exc.result()}
    rows = [
        {**link, "name": f"{link['network']} {' - '.join(link['between'])}", "changed": False} for link in plan["links"]
    ]
    return {**plan, "rows": rows}


def _machines(host: OverlayHost) -> t.Sequence[t.Mapping[str, object]]:
    """A host's machines. Where libvirt doesn't answer, they are as they were."""
    seen = host.get("machines")
    return host["part"].get("guests") or () if seen is None else seen


def overlay_lacks(
    infos: t.Mapping[str, t.Mapping[str, t.Any] | None],
    networks: t.Sequence[t.Mapping[str, t.Any]] = (),
    hosts: t.Collection[str] | None = None,
) -> Lacks:
    """What hosts still lack of their networks.

    :param infos: results of the module ``overlay_info``, by host.
    :param networks: ``virtuoso_networks``, where the networks themselves may be missing. One without ``hosts`` is for
        all of them.
    :param hosts: the hosts of which BGP must have told, where these are not all.
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
