# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From networks, hosts and what probing found to what each host is to have, in phases (pure).

A host's part is one dictionary: ``networks``, ``links``, ``guests``, ``forwarding``, ``peers``. The module ``overlay``
brings the host to it.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import guest_device
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import wireguard
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import mesh, model, topology, transport
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.topology import Edge, edge

Part = t.Dict[str, t.Any]
Host = t.Mapping[str, t.Any]

_JOINED = -1e9
"""Seconds between two hosts of a mesh: they are joined before all others."""
EMPTY: Part = {"networks": [], "links": [], "guests": [], "forwarding": [], "peers": []}


Links = t.Dict[t.Tuple[str, str, str], t.Dict[str, Part]]
"""The ends of links, by two hosts and a transport, and by host: while one transport takes another's place, both are
there."""


def _links_now(network: str, parts: t.Mapping[str, Part], hosts: t.Mapping[str, Host]) -> Links:
    """The links of a network that are there at both ends, as far as the ends could be asked, and the places on its
    mesh."""
    seen: Links = {}
    places: Links = {}
    for host, part in parts.items():
        for link in part.get("links") or []:
            if link["network"] == network and link["peer"] in hosts:
                seen.setdefault((*edge(host, link["peer"]), link["transport"]), {})[host] = link
            elif link["network"] == network and link["transport"] == mesh.KIND:
                places[(*mesh.place(host), mesh.KIND)] = {host: link}
                # Who isn't reached is on it as long as the others say so.
                for peer in link["peers"]:
                    if peer["name"] in hosts and not _reached(hosts, peer["name"]):
                        places.setdefault(
                            (*mesh.place(peer["name"]), mesh.KIND),
                            {peer["name"]: {"role": "evpn", "reason": link["reason"]}},
                        )
    both = {
        key: ends for key, ends in seen.items() if len(ends) == 2 or not all(_reached(hosts, host) for host in key[:2])
    }
    return {**both, **places}


def _reached(hosts: t.Mapping[str, Host], host: str) -> bool:
    return bool(hosts[host].get("reached", True))


class Design:
    """One network over its hosts: which links, by what, how large its frames.

    A host that could not be reached keeps the links that it has, and gets no new ones.
    """

    def __init__(
        self, network: model.Network, hosts: t.Mapping[str, Host], facts: transport.Facts, parts: t.Mapping[str, Part]
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

    def _choose(self, members: t.Sequence[str], hosts: t.Mapping[str, Host], facts: transport.Facts) -> None:
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

    def _choose_mesh(self, members: t.Sequence[str], hosts: t.Mapping[str, Host], facts: transport.Facts) -> None:
        """Who is on the mesh; whoever isn't hangs off one of those by a tap."""
        reached = [host for host in members if _reached(hosts, host)]
        kept = {key[1] for key in self.now if key[2] == mesh.KIND and key[1] in members and key[1] not in reached}
        told = mesh.mesh_of(self.network, reached, kept, hosts, facts)
        outside = mesh.without(told)
        on_it = [host for host in reached if host not in outside]
        self.mesh = {*on_it, *kept} if len(members) > 1 else set()
        self._require_answers(set(members) - set(reached) - kept)
        for host in self.mesh:
            sizes = [self.choices[edge(host, other)]["mtu"] for other in on_it if host in on_it and other != host]
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
        """No VXLAN link beside a mesh: FRR would take its device for the mesh's."""
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
            told = [str(exc) for pair, exc in sorted(self.troubles.items()) if set(pair) & set(lost)]
            raise GridError(
                "no_path",
                f"{', '.join(lost)} can't be linked with it: {' '.join(told)}",
                object=f"network {self.network['name']}",
                tried="plan its links",
                remedy="Admit UDP port 4789 both ways, or TCP to the SSH server of one of each two",
                hosts=lost,
            )

    def _mtu(self) -> int:
        sizes = [self.choices[pair]["mtu"] for pair in (*self.tree, *self.shortcuts)]
        largest = min((size for size in sizes if size is not None), default=model.SSH_MTU)
        wanted = self.network["mtu"]
        # Over TCP any size goes, but where it is chosen for want of another, frames stay as others make them.
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

    def steps(self) -> list[dict[t.Any, str]]:
        """Roles by link, phase by phase. A link whose transport changes is two: the old one stays until the new one is
        there."""

        def keyed(pairs: t.Iterable[Edge]) -> set[t.Any]:
            return {(*pair, self.choices[pair]["transport"]) for pair in pairs}

        roles = {key: next(iter(ends.values()))["role"] for key, ends in self.now.items()}
        old = {key: role for key, role in roles.items() if role != "shortcut"}
        meshed = any(key[2] == mesh.KIND for key in {*old, *keyed(self.tree)})
        found = (topology.mesh_phases if meshed else topology.phases)(old, keyed(self.tree))
        wanted = keyed(self.shortcuts)
        there = {
            key
            for key, ends in self.now.items()
            if len(ends) == 2 and all(end["role"] == "shortcut" for end in ends.values())
        }
        before = {key for key, ends in self.now.items() if any(end["role"] == "shortcut" for end in ends.values())}
        # Nothing is sent over a shortcut before both of its ends are up, nor while one of them is taken away.
        resting = dict.fromkeys((wanted - there) | (before - wanted), "standby")
        phases = [{**dict.fromkeys(wanted & there, "shortcut"), **resting, **found[0]}] if resting else []
        phases += [{**dict.fromkeys(wanted, "shortcut"), **phase} for phase in found]
        return phases

    def link(self, key: tuple[str, str, str], host: str, role: str, hosts: t.Mapping[str, Host]) -> Part | None:
        """A host's end of a link. What goes, and what belongs to a host that wasn't reached, is as it was."""
        pair, kind = (key[0], key[1]), key[2]
        if kind == mesh.KIND:
            before = self.now.get(key, {}).get(host)
            return (
                mesh.end_of(self.network, host, role, self.mesh, hosts)
                if host in self.mesh
                else {**before, "role": role}
                if before
                else None
            )
        choice = self.choices.get(pair)
        if choice is None or choice["transport"] != kind or "kept" in choice:
            before = self.now.get(key, {}).get(host)
            return {**before, "role": role} if before else None
        name, peer = self.network["name"], pair[0] if pair[1] == host else pair[1]
        link = {
            "device": model.link_device(kind, name, *pair),
            "network": name,
            "peer": peer,
            "role": role,
            "transport": kind,
            "reason": choice["reason"],
            "remote": hosts[peer]["address"],
        }
        if kind == "ssh":
            return {
                **link,
                "end": "client" if choice["client"] == host else "server",
                "port": int(hosts[peer].get("port") or 22),
            }
        inner = {"inner": wireguard.address(peer)} if kind == "wireguard" else {}
        return {**link, **inner, "vni": model.link_vni(self.network["vni"], *pair)}


def _guests(networks: t.Collection[str], machines: t.Iterable[Host]) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for machine in machines:
        if machine.get("network") in networks and machine.get("provider") and machine.get("mac"):
            entry = {
                "device": guest_device(machine["mac"]),
                "mac": machine["mac"].lower(),
                "network": machine["network"],
            }
            found.setdefault(machine["provider"], []).append(entry)
    return {host: sorted(entries, key=lambda entry: entry["mac"]) for host, entries in found.items()}


def forwarding_of(links: t.Iterable[Part], guests: t.Mapping[str, t.Sequence[Part]]) -> list[Part]:
    """Static entries of a host: over a shortcut to the machines at its other end. :param guests: by host."""
    return [
        {"device": link["device"], "mac": guest["mac"]}
        for link in links
        if link["role"] == "shortcut"
        for guest in guests.get(link["peer"], ())
        if guest["network"] == link["network"]
    ]


def overlay_plan(
    given: t.Sequence[t.Any],
    hosts: t.Mapping[str, Host],
    facts: transport.Facts,
    parts: t.Mapping[str, Part] | None = None,
    machines: t.Sequence[Host] = (),
    known_keys: t.Mapping[str, str] | None = None,
) -> dict[str, t.Any]:
    """What is to be done on each host.

    :param given: ``virtuoso_networks``.
    :param hosts: by name: ``address``, ``port`` of SSH, ``site``.
    :param facts: what the module ``overlay_probe`` found, by host.
    :param parts: what each host has now.
    :param machines: ``provider``, ``network`` and ``mac`` of each.
    :param known_keys: the hosts' SSH keys as the grid knows them.
    :returns: ``phases``, each a part by host; ``links``, one row each with its reason; ``networks`` with their MTU.
    :raises GridError: as :mod:`model`, :mod:`transport`, and ``no_path``, ``mtu_too_large``, ``host_key_changed``,
        ``network_in_use``.
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
    rows = [
        {
            "network": design.network["name"],
            "between": list(pair),
            "sites": [hosts[host].get("site") or host for host in pair],
            "kind": "tree" if pair in design.tree else "shortcut",
            **{key: design.choices[pair].get(key) for key in ("transport", "reason", "rtt")},
            "mtu": design.mtu,
            "vni": model.link_vni(design.network["vni"], *pair),
        }
        for design in designs
        for pair in sorted(design.tree | design.shortcuts)
        if pair[0] != mesh.NODE
    ]
    rows += [row for design in designs for row in mesh.rows_of(design.network, design.mesh, design.mtu, hosts)]
    shown = [
        {
            **{key: design.network[key] for key in ("name", "home", "vni", "topology")},
            "mtu": design.mtu,
            "sites": sorted({hosts[host].get("site") or host for host in design.network["hosts"]}),
        }
        for design in designs
    ]
    return {"phases": phases, "links": rows, "networks": shown}


def _part(
    host: str,
    designs: t.Sequence[Design],
    roles: t.Sequence[dict[Edge, str]],
    hosts: t.Mapping[str, Host],
    guests: t.Mapping[str, list[Part]],
) -> Part:
    mine = [design for design in designs if host in design.network["hosts"]]
    if not mine:
        return dict(EMPTY)
    ends = [
        design.link(key, host, role, hosts)
        for design, each in zip(designs, roles)
        for key, role in sorted(each.items())
        if host in key[:2]
    ]
    links = [end for end in ends if end is not None]
    networks = [
        {
            "name": design.network["name"],
            "bridge": model.bridge_name(design.network["name"]),
            "mtu": design.mtu,
            "spoofing": design.network["spoofing"],
        }
        for design in mine
    ]
    inside = wireguard.of_links(host, links)
    if inside:
        inside["mtu"] = max(network["mtu"] for network in networks) + wireguard.INSIDE
    return {
        **({"wireguard": inside} if inside else {}),
        "networks": networks,
        "links": links,
        "guests": guests.get(host, []),
        "forwarding": sorted(forwarding_of(links, guests), key=lambda entry: (entry["device"], entry["mac"])),
        "peers": sorted(
            {link["remote"] for link in links if link["transport"] == "vxlan"}
            | {peer["address"] for link in links if link["transport"] == mesh.KIND for peer in link["peers"]}
        ),
    }


def check_host_keys(facts: transport.Facts, parts: t.Mapping[str, Part], known: t.Mapping[str, str]) -> None:
    """:raises GridError: ``host_key_changed`` where a host shows another SSH key than the grid, or one of its links,
    knows."""
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


def _check_unused(networks: t.Sequence[model.Network], parts: t.Mapping[str, Part], machines: t.Sequence[Host]) -> None:
    """:raises GridError: ``network_in_use``: a network is to go, and machines are on it."""
    gone = {entry["name"] for part in parts.values() for entry in part.get("networks") or []} - {
        network["name"] for network in networks
    }
    for name in sorted(gone):
        users = sorted(machine.get("name") or machine["mac"] for machine in machines if machine.get("network") == name)
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
    """:raises GridError: ``vni_overlap``: two links of one host would take each other's frames."""
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
    """The phases with what links need to know each other: an SSH server the client's key, its client the server's host
    key, WireGuard its peers' keys.

    :param keys: by host and device, the public key of the link's client; WireGuard's is called ``wireguard``.
    :param host_keys: by host.
    """

    def completed(link: Part) -> Part:
        if link["transport"] != "ssh":
            return dict(link)
        if link["end"] == "client":
            return {**link, "host_key": host_keys.get(link["peer"]) or link.get("host_key", "")}
        return {**link, "client_key": keys.get(link["peer"], {}).get(link["device"]) or link.get("client_key", "")}

    def whole(part: Part) -> Part:
        found = {**part, "links": [completed(link) for link in part["links"]]}
        if part.get("wireguard"):
            peers = [
                {**peer, "key": keys.get(peer["name"], {}).get("wireguard", "")} for peer in part["wireguard"]["peers"]
            ]
            found["wireguard"] = {**part["wireguard"], "peers": peers}
        return found

    return [{host: whole(part) for host, part in phase.items()} for phase in phases]
