# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the overlay: from networks, hosts and probe results to the part of each host, in phases (pure).

The module ``overlay`` brings a host to its part. All hosts finish a phase before the next begins.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import guest_device
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import wireguard
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import (
    Forwarding,
    Guest,
    LinkEnd,
    Part,
    PartNetwork,
    WireguardPeer,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import mesh, model, topology, transport
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.records import (
    Facts,
    Host,
    LinkRow,
    Machine,
    NetworkRow,
    Plan,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.topology import Edge, LinkKey, edge

_JOINED = -1e9
"""Stands for the latency between two hosts of a mesh, in seconds: they are joined before all others."""

Links = t.Dict[LinkKey, t.Dict[str, LinkEnd]]
"""The ends of links, by link and host."""


def _links_now(network: str, parts: t.Mapping[str, Part], hosts: t.Mapping[str, Host]) -> Links:
    """The links of a network that are there at both ends, and the hosts' places on its mesh. An end on a host that
    didn't answer is taken for granted."""
    seen: Links = {}
    places: Links = {}
    for host, part in parts.items():
        for link in part.get("links") or []:
            if link["network"] == network and link["peer"] in hosts:
                seen.setdefault((*edge(host, link["peer"]), link["transport"]), {})[host] = link
            elif link["network"] == network and link["transport"] == mesh.KIND:
                places[(*mesh.place(host), mesh.KIND)] = {host: link}
                # A host that didn't answer counts as on the mesh if others have it as a peer.
                for peer in link["peers"]:
                    if peer["name"] in hosts and not _reached(hosts, peer["name"]):
                        assumed: LinkEnd = {**link, "role": "evpn"}
                        places.setdefault((*mesh.place(peer["name"]), mesh.KIND), {peer["name"]: assumed})
    both = {
        key: ends for key, ends in seen.items() if len(ends) == 2 or not all(_reached(hosts, host) for host in key[:2])
    }
    return {**both, **places}


def _reached(hosts: t.Mapping[str, Host], host: str) -> bool:
    return bool(hosts[host].get("reached", True))


class Design:
    """The design of one network: its links, their transports, its MTU.

    A host that didn't answer keeps its links and gets no new ones.
    """

    def __init__(
        self, network: model.Network, hosts: t.Mapping[str, Host], facts: Facts, parts: t.Mapping[str, Part]
    ) -> None:
        self.network = network
        self.choices: dict[Edge, transport.Choice] = {}
        self.troubles: dict[Edge, GridError] = {}
        self.now = _links_now(network["name"], parts, hosts)
        self._mtu_now = min(
            (
                entry["mtu"]
                for part in parts.values()
                for entry in part.get("networks") or []
                if entry["name"] == network["name"]
            ),
            default=None,
        )
        members = [host for host in network["hosts"] if host in hosts]
        self.mesh: set[str] = set()
        self._choose(members, hosts, facts)
        if network["topology"] == "evpn":
            self._choose_mesh(members, hosts, facts)
        site = {host: hosts[host].get("site") or host for host in members}

        def seconds(one: str, other: str) -> float | None:
            if self.mesh.issuperset((one, other)):
                return _JOINED
            return -1.0 if self.choices[edge(one, other)].get("kept") else transport.latency(facts, one, other)

        def possible(one: str, other: str) -> bool:
            return edge(one, other) in self.choices or self.mesh.issuperset((one, other))

        found = topology.tree_of(network["topology"], network["home"], members, site, seconds, possible)
        self.tree = {pair for pair in found if not self.mesh.issuperset(pair)} | {
            mesh.place(host) for host in self.mesh
        }
        self._require_paths([host for host in members if _reached(hosts, host)])
        self.shortcuts = {edge(*pair) for pair in network["shortcuts"]} - self.tree
        for pair in sorted(self.shortcuts - set(self.choices)):
            if all(_reached(hosts, host) for host in pair):
                raise self.troubles[pair]
            self.shortcuts.discard(pair)
        self.mtu = self._mtu()

    def _choose(self, members: t.Sequence[str], hosts: t.Mapping[str, Host], facts: Facts) -> None:
        """Choose a transport for each pair of hosts that can be linked."""
        for place, one in enumerate(members):
            for other in members[place + 1 :]:
                if _reached(hosts, one) and _reached(hosts, other):
                    try:
                        self.choices[edge(one, other)] = transport.choose(self.network, one, other, facts)
                    except GridError as exc:
                        if exc.code == "transport_unusable":
                            raise
                        self.troubles[edge(one, other)] = exc
        for (one, other, kind), ends in self.now.items():
            if kind != mesh.KIND and not (_reached(hosts, one) and _reached(hosts, other)):
                end = next(iter(ends.values()))
                mtu = None if kind == "ssh" else self._mtu_now
                self.choices[(one, other)] = {
                    "transport": kind,
                    "reason": end["reason"],
                    "rtt": None,
                    "mtu": mtu,
                    "kept": end["role"] != "shortcut",
                }

    def _choose_mesh(self, members: t.Sequence[str], hosts: t.Mapping[str, Host], facts: Facts) -> None:
        """Decide which hosts are on the mesh; each of the others is linked with one of them by a tap."""
        reached = [host for host in members if _reached(hosts, host)]
        kept = {key[1] for key in self.now if key[2] == mesh.KIND and key[1] in members and key[1] not in reached}
        outside = mesh.without(mesh.mesh_of(self.network, reached, kept, hosts, facts))
        on_it = [host for host in reached if host not in outside]
        self.mesh = {*on_it, *kept} if len(members) > 1 else set()
        self._require_answers(set(members) - set(reached) - kept)
        for host in self.mesh:
            others = [other for other in on_it if host in on_it and other != host]
            sizes = [size for size in (self.choices[edge(host, other)]["mtu"] for other in others) if size is not None]
            self.choices[mesh.place(host)] = {
                "transport": mesh.KIND,
                "reason": "",
                "mtu": min(sizes, default=self._mtu_now),
            }
        for one in on_it:
            for other, why in outside.items():
                self.choices.pop(edge(one, other), None)
                try:
                    self.choices[edge(one, other)] = transport.choose_tap(self.network, one, other, facts, why)
                except GridError as exc:
                    self.troubles[edge(one, other)] = exc

    def _require_answers(self, silent: t.Collection[str]) -> None:
        """Refuse VXLAN links to hosts that didn't answer: beside a mesh, FRR would take their devices for the
        mesh's."""
        held = sorted(
            {
                host
                for pair, choice in self.choices.items()
                for host in pair
                if choice.get("kept") is not None and host in silent
            }
        )
        held = [
            host
            for host in held
            if any(host in pair and self.choices[pair]["transport"] in ("vxlan", "wireguard") for pair in self.choices)
        ]
        if held:
            raise GridError(
                "host_unreached",
                f"{', '.join(held)} doesn't answer, and its link with the others can't stay beside an EVPN mesh",
                object=f"network {self.network['name']}",
                tried="plan its EVPN mesh",
                remedy="Run again when it answers, or leave it out of the network's hosts and of the inventory",
                hosts=held,
            )

    def _require_paths(self, members: t.Collection[str]) -> None:
        home = self.network["home"]
        lost = sorted(set(members) - topology.reachable(home, self.tree) - {home})
        if lost:
            why = [str(exc) for pair, exc in sorted(self.troubles.items()) if set(pair) & set(lost)]
            raise GridError(
                "no_path",
                f"{', '.join(lost)} can't be linked with it: {' '.join(why)}",
                object=f"network {self.network['name']}",
                tried="plan its links",
                remedy="Admit UDP port 4789 both ways, or TCP to the SSH server of one of each two",
                hosts=lost,
            )

    def _mtu(self) -> int:
        sizes = [self.choices[pair]["mtu"] for pair in (*self.tree, *self.shortcuts)]
        largest = min((size for size in sizes if size is not None), default=model.SSH_MTU)
        wanted = self.network["mtu"]
        # SSH carries frames of any size; a network that only SSH carries gets the usual size by default.
        if wanted is not None and any(size is not None and wanted > size for size in sizes):
            raise GridError(
                "mtu_too_large",
                f"frames of {wanted} bytes are asked for, and its links carry {largest}",
                object=f"network {self.network['name']}",
                tried="compute its MTU",
                remedy=f"Give mtu: {largest} or less, or leave it out",
                mtu=largest,
            )
        return wanted or largest

    def steps(self) -> list[dict[LinkKey, str]]:
        """The role of each link, phase by phase. Where a transport changes, the old link stays until the new one is
        there."""

        def keyed(pairs: t.Iterable[Edge]) -> set[LinkKey]:
            return {(*pair, self.choices[pair]["transport"]) for pair in pairs}

        roles = {key: next(iter(ends.values()))["role"] for key, ends in self.now.items()}
        old = {key: role for key, role in roles.items() if role != "shortcut"}
        meshed = any(key[2] == mesh.KIND for key in {*old, *keyed(self.tree)})
        tree = keyed(self.tree)
        found = topology.mesh_phases(old, tree) if meshed else topology.phases(old, tree)
        wanted = keyed(self.shortcuts)
        there = {
            key
            for key, ends in self.now.items()
            if len(ends) == 2 and all(end["role"] == "shortcut" for end in ends.values())
        }
        before = {key for key, ends in self.now.items() if any(end["role"] == "shortcut" for end in ends.values())}
        # Nothing is sent over a shortcut before both of its ends are up, nor while one of them is removed.
        resting = dict.fromkeys((wanted - there) | (before - wanted), "standby")
        phases = [{**dict.fromkeys(wanted & there, "shortcut"), **resting, **found[0]}] if resting else []
        phases += [{**dict.fromkeys(wanted, "shortcut"), **phase} for phase in found]
        return phases

    def link(self, key: LinkKey, host: str, role: str, hosts: t.Mapping[str, Host]) -> LinkEnd | None:
        """A host's end of a link. A link that will be removed, or leads to a host that didn't answer, stays as it
        is."""
        pair, kind = (key[0], key[1]), key[2]
        before = self.now.get(key, {}).get(host)
        if kind == mesh.KIND and host in self.mesh:
            return mesh.end_of(self.network, host, role, self.mesh, hosts)
        choice = self.choices.get(pair)
        if kind == mesh.KIND or choice is None or choice["transport"] != kind or "kept" in choice:
            return {**before, "role": role} if before else None
        name, peer = self.network["name"], pair[0] if pair[1] == host else pair[1]
        link: LinkEnd = {
            "device": model.link_device(kind, name, *pair),
            "network": name,
            "peer": peer,
            "role": role,
            "transport": kind,
            "reason": choice["reason"],
            "remote": hosts[host].get("resolved", {}).get(peer, hosts[peer]["address"]),
        }
        if kind == "ssh":
            return {
                **link,
                "end": "client" if choice["client"] == host else "server",
                "port": int(hosts[peer].get("port") or 22),
            }
        if kind == "wireguard":
            link["inner"] = wireguard.address(peer)
        return {**link, "vni": model.link_vni(self.network["vni"], *pair)}


def _guests(networks: t.Collection[str], machines: t.Iterable[Machine]) -> dict[str, list[Guest]]:
    """The machines of these networks, by host."""
    found: dict[str, list[Guest]] = {}
    for machine in machines:
        provider, mac = machine.get("provider"), machine.get("mac")
        if machine.get("network") in networks and provider and mac:
            entry: Guest = {"device": guest_device(mac), "mac": mac.lower(), "network": machine["network"]}
            found.setdefault(provider, []).append(entry)
    return {host: sorted(entries, key=lambda entry: entry["mac"]) for host, entries in found.items()}


def forwarding_of(links: t.Iterable[LinkEnd], guests: t.Mapping[str, t.Sequence[Guest]]) -> list[Forwarding]:
    """The static entries of a host: over each shortcut to the machines at its other end.

    :param links: of the host. :param guests: of all hosts, by host.
    """
    return [
        {"device": link["device"], "mac": guest["mac"]}
        for link in links
        if link["role"] == "shortcut"
        for guest in guests.get(link["peer"], ())
        if guest["network"] == link["network"]
    ]


def overlay_plan(
    given: t.Sequence[object],
    hosts: t.Mapping[str, Host],
    facts: Facts,
    parts: t.Mapping[str, Part] | None = None,
    machines: t.Sequence[Machine] = (),
    known_keys: t.Mapping[str, str] | None = None,
) -> Plan:
    """Plan what each host is to have.

    :param given: ``virtuoso_networks``.
    :param hosts: by name.
    :param facts: what the module ``overlay_probe`` found, by host.
    :param parts: what each host has now.
    :param machines: with ``provider``, ``network`` and ``mac``.
    :param known_keys: the public SSH host keys that the grid knows, by host.
    :raises GridError: those of :mod:`model` and :mod:`transport`, ``no_path``, ``mtu_too_large``, ``host_key_changed``,
        ``network_in_use``, ``vni_overlap``, ``host_unreached``.
    """
    check_host_keys(facts, parts or {}, known_keys or {})
    networks = [model.parse_network(entry, list(hosts)) for entry in given]
    model.check_apart(networks)
    _check_unused(networks, parts or {}, machines)
    designs = [Design(network, hosts, facts, parts or {}) for network in networks]
    _check_vnis(designs)
    steps = [design.steps() for design in designs]
    guests = _guests({network["name"] for network in networks}, machines)
    count = max((len(each) for each in steps), default=1)
    phases = []
    for number in range(count):
        roles = [each[max(0, number - (count - len(each)))] for each in steps]
        phases.append({host: _part(host, designs, roles, hosts, guests) for host in hosts if _reached(hosts, host)})
    rows: list[LinkRow] = [
        {
            "network": design.network["name"],
            "between": list(pair),
            "sites": [hosts[host].get("site") or host for host in pair],
            "kind": "tree" if pair in design.tree else "shortcut",
            "transport": design.choices[pair]["transport"],
            "reason": design.choices[pair]["reason"],
            "rtt": design.choices[pair].get("rtt"),
            "mtu": design.mtu,
            "vni": model.link_vni(design.network["vni"], *pair),
        }
        for design in designs
        for pair in sorted(design.tree | design.shortcuts)
        if pair[0] != mesh.NODE
    ]
    rows += [row for design in designs for row in mesh.rows_of(design.network, design.mesh, design.mtu, hosts)]
    shown: list[NetworkRow] = [
        {
            "name": design.network["name"],
            "home": design.network["home"],
            "vni": design.network["vni"],
            "topology": design.network["topology"],
            "mtu": design.mtu,
            "sites": sorted({hosts[host].get("site") or host for host in design.network["hosts"]}),
        }
        for design in designs
    ]
    return {"phases": phases, "links": rows, "networks": shown}


def _part(
    host: str,
    designs: t.Sequence[Design],
    roles: t.Sequence[dict[LinkKey, str]],
    hosts: t.Mapping[str, Host],
    guests: t.Mapping[str, list[Guest]],
) -> Part:
    """A host's part in one phase. :param roles: of the links of each design."""
    mine = [design for design in designs if host in design.network["hosts"]]
    if not mine:
        return {"networks": [], "links": [], "guests": [], "forwarding": [], "peers": []}
    ends = [
        design.link(key, host, role, hosts)
        for design, each in zip(designs, roles)
        for key, role in sorted(each.items())
        if host in key[:2]
    ]
    links = [end for end in ends if end is not None]
    networks: list[PartNetwork] = [
        {
            "name": design.network["name"],
            "bridge": model.bridge_name(design.network["name"]),
            "mtu": design.mtu,
            "spoofing": design.network["spoofing"],
        }
        for design in mine
    ]
    part: Part = {
        "networks": networks,
        "links": links,
        "guests": guests.get(host, []),
        "forwarding": sorted(forwarding_of(links, guests), key=lambda entry: (entry["device"], entry["mac"])),
        "peers": sorted(
            {link["remote"] for link in links if link["transport"] == "vxlan"}
            | {peer["address"] for link in links if link["transport"] == mesh.KIND for peer in link["peers"]}
        ),
    }
    encrypted = wireguard.of_links(host, links, max(network["mtu"] for network in networks))
    if encrypted:
        part["wireguard"] = encrypted
    return part


def check_host_keys(facts: Facts, parts: t.Mapping[str, Part], known: t.Mapping[str, str]) -> None:
    """Require that each host has the SSH host key that the grid, or one of its links, knows.

    :raises GridError: ``host_key_changed``.
    """
    linked = {
        link["peer"]: link["host_key"]
        for part in parts.values()
        for link in part.get("links") or []
        if link.get("host_key")
    }
    for host, seen in sorted(facts.items()):
        before, shown = known.get(host, linked.get(host)), seen.get("host_key")
        if before and shown and before != shown:
            raise GridError(
                "host_key_changed",
                "its SSH host key is another one than the grid knows",
                host=host,
                object=f"host {host}",
                tried="link it with others",
                remedy=f"If the host was made anew, run virtuoso.grid.setup on it and then this "
                f"with virtuoso_overlay_new_keys=['{host}']; if not, somebody else answers",
            )


def _check_unused(
    networks: t.Sequence[model.Network], parts: t.Mapping[str, Part], machines: t.Sequence[Machine]
) -> None:
    """Require that no machine is on a network that will be removed. :raises GridError: ``network_in_use``."""
    gone = {entry["name"] for part in parts.values() for entry in part.get("networks") or []} - {
        network["name"] for network in networks
    }
    for name in sorted(gone):
        users = sorted(
            machine.get("name") or str(machine["mac"]) for machine in machines if machine.get("network") == name
        )
        if users:
            raise GridError(
                "network_in_use",
                f"machines are on it: {', '.join(users)}",
                object=f"network {name}",
                tried="take it away",
                remedy="Retire the machines or order them onto another network first",
                machines=users,
            )


def _check_vnis(designs: t.Sequence[Design]) -> None:
    """Require that no host has two links with the same VNI. :raises GridError: ``vni_overlap``."""
    seen: dict[tuple[str, int], str] = {}
    for design in designs:
        for pair in sorted(design.tree | design.shortcuts):
            on_mesh = pair[0] == mesh.NODE
            number = design.network["vni"] if on_mesh else model.link_vni(design.network["vni"], *pair)
            name = f"{design.network['name']} {'(EVPN)' if on_mesh else f'{pair[0]} - {pair[1]}'}"
            for host in pair:
                if seen.setdefault((host, number), name) != name:
                    raise GridError(
                        "vni_overlap",
                        f"link {name} has the VNI of link {seen[host, number]} on {host}",
                        object=f"network {design.network['name']}",
                        tried="plan its links",
                        remedy="Give the network another vni",
                        other=seen[host, number],
                    )


def with_keys(
    phases: t.Sequence[t.Mapping[str, Part]], keys: t.Mapping[str, t.Mapping[str, str]], host_keys: t.Mapping[str, str]
) -> list[dict[str, Part]]:
    """The phases with the public keys that links need: an SSH server its client's key, the client the server's host
    key, WireGuard its peers' keys.

    :param keys: public keys by host and device, for the SSH clients; WireGuard's has the device name ``wireguard``.
    :param host_keys: public SSH host keys by host.
    """

    def completed(link: LinkEnd) -> LinkEnd:
        if link["transport"] != "ssh":
            return link
        if link["end"] == "client":
            return {**link, "host_key": host_keys.get(link["peer"]) or link.get("host_key", "")}
        return {**link, "client_key": keys.get(link["peer"], {}).get(link["device"]) or link.get("client_key", "")}

    def whole(part: Part) -> Part:
        found: Part = {**part, "links": [completed(link) for link in part["links"]]}
        encrypted = part.get("wireguard")
        if encrypted:
            peers: list[WireguardPeer] = [
                {**peer, "key": keys.get(peer["name"], {}).get("wireguard", "")} for peer in encrypted["peers"]
            ]
            found["wireguard"] = {**encrypted, "peers": peers}
        return found

    return [{host: whole(part) for host, part in phase.items()} for phase in phases]
