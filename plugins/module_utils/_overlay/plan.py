# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From networks, hosts and what probing found to what each host is to have, in phases (pure).

A host's part is one dictionary: ``networks``, ``links``, ``guests``, ``forwarding``, ``peers``. The module ``overlay`` brings the host to it.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay import model, topology, transport
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.topology import Edge, edge

Part = t.Dict[str, t.Any]
Host = t.Mapping[str, t.Any]

EMPTY: Part = {"networks": [], "links": [], "guests": [], "forwarding": [], "peers": []}


def _roles_now(network: str, parts: t.Mapping[str, Part]) -> dict[Edge, tuple[str, t.Any]]:
    """The links of a network that are there at both ends: role and transport."""
    seen: dict[Edge, list[Part]] = {}
    for host, part in parts.items():
        for link in part.get("links") or []:
            if link["network"] == network:
                seen.setdefault(edge(host, link["peer"]), []).append(link)
    return {pair: (ends[0]["role"], ends[0]["transport"]) for pair, ends in seen.items() if len(ends) == 2}


class Design:
    """One network over its hosts: which links, by what, how large its frames."""

    def __init__(self, network: model.Network, hosts: t.Mapping[str, Host], facts: transport.Facts) -> None:
        self.network = network
        self.choices: dict[Edge, transport.Choice] = {}
        self.troubles: dict[Edge, GridError] = {}
        members = [host for host in network["hosts"] if host in hosts]
        for place, one in enumerate(members):
            for other in members[place + 1 :]:
                try:
                    self.choices[edge(one, other)] = transport.choose(network, one, other, facts)
                except GridError as exc:
                    self.troubles[edge(one, other)] = exc
        site = {host: hosts[host].get("site") or host for host in members}
        self.tree = topology.tree_of(
            network["topology"], network["home"], members, site,
            lambda one, other: transport.latency(facts, one, other), lambda one, other: edge(one, other) in self.choices,
        )
        self._require_paths(members)
        self.shortcuts = {edge(*pair) for pair in network["shortcuts"]} - self.tree
        for pair in self.shortcuts:
            if pair not in self.choices:
                raise self.troubles[pair]
        self.mtu = self._mtu()

    def _require_paths(self, members: t.Collection[str]) -> None:
        home = self.network["home"]
        lost = sorted(set(members) - topology.reachable(home, self.tree) - {home})
        if lost:
            told = [str(exc) for pair, exc in sorted(self.troubles.items()) if set(pair) & set(lost)]
            raise GridError(
                "no_path", f"{', '.join(lost)} can't be linked with it: {' '.join(told)}", object=f"network {self.network['name']}",
                tried="plan its links", remedy="Admit UDP port 4789 both ways, or TCP to the SSH server of one of each two", hosts=lost,
            )

    def _mtu(self) -> int:
        sizes = [self.choices[pair]["mtu"] for pair in (*self.tree, *self.shortcuts)]
        largest = min((size for size in sizes if size is not None), default=model.SSH_MTU)
        wanted = self.network["mtu"]
        # Over TCP any size goes, but where it is chosen for want of another, frames stay as others make them.
        if wanted is not None and any(size is not None and wanted > size for size in sizes):
            raise GridError(
                "mtu_too_large", f"frames of {wanted} bytes are asked for, and its links carry {largest}", object=f"network {self.network['name']}",
                tried="compute its MTU", remedy=f"Give mtu: {largest} or less, or leave it out", mtu=largest,
            )
        return wanted or largest

    def steps(self, now: t.Mapping[Edge, tuple[str, t.Any]]) -> list[dict[Edge, str]]:
        """Roles by link, phase by phase. A link whose transport changes goes, for what is between, as one that is new."""
        old = {pair for pair, (role, kind) in now.items() if role == "tree"}
        found = topology.phases(old, self.tree)
        return [{**dict.fromkeys(self.shortcuts - set(phase), "shortcut"), **phase} for phase in found]


def _link(design: Design, pair: Edge, host: str, role: str, hosts: t.Mapping[str, Host]) -> Part:
    name, choice = design.network["name"], design.choices[pair]
    peer = pair[0] if pair[1] == host else pair[1]
    link = {
        "device": model.link_device(choice["transport"], name, *pair),
        "network": name,
        "peer": peer,
        "role": role,
        "transport": choice["transport"],
        "reason": choice["reason"],
        "remote": hosts[peer]["address"],
    }
    if choice["transport"] == "ssh":
        client = choice["client"] == host
        return {**link, "end": "client" if client else "server", "port": int(hosts[peer].get("port") or 22)}
    return {**link, "vni": model.link_vni(name, *pair)}


def _guests(networks: t.Collection[str], machines: t.Iterable[Host]) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for machine in machines:
        if machine.get("network") in networks and machine.get("provider") and machine.get("mac"):
            entry = {"device": model.guest_device(machine["mac"]), "mac": machine["mac"].lower(), "network": machine["network"]}
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
) -> dict[str, t.Any]:
    """What is to be done on each host.

    :param given: ``virtuoso_networks``. :param hosts: by name: ``address``, ``port`` of SSH, ``site``. :param facts: what the module ``overlay_probe`` found, by host.
    :param parts: what each host has now. :param machines: ``provider``, ``network`` and ``mac`` of each.
    :returns: ``phases``, each a part by host; ``links``, one row each with its reason; ``networks`` with their MTU.
    :raises GridError: as :mod:`model`, :mod:`transport`, and ``no_path``, ``mtu_too_large``.
    """
    networks = [model.parse_network(entry, list(hosts)) for entry in given]
    model.check_apart(networks)
    designs = [Design(network, hosts, facts) for network in networks]
    now = {design.network["name"]: _roles_now(design.network["name"], parts or {}) for design in designs}
    steps = [design.steps(now[design.network["name"]]) for design in designs]
    guests = _guests({network["name"] for network in networks}, machines)
    count = max((len(each) for each in steps), default=1)
    phases = []
    for number in range(count):
        roles = [each[max(0, number - (count - len(each)))] for each in steps]
        phases.append({host: _part(host, designs, roles, hosts, guests) for host in hosts})
    rows = [
        {
            "network": design.network["name"], "between": list(pair), "kind": "tree" if pair in design.tree else "shortcut",
            **{key: design.choices[pair].get(key) for key in ("transport", "reason", "rtt")}, "mtu": design.mtu,
            "vni": model.link_vni(design.network["name"], *pair),
        }
        for design in designs
        for pair in sorted(design.tree | design.shortcuts)
    ]
    shown = [{**{key: design.network[key] for key in ("name", "home", "vni", "topology")}, "mtu": design.mtu} for design in designs]
    return {"phases": phases, "links": rows, "networks": shown}


def _part(host: str, designs: t.Sequence[Design], roles: t.Sequence[dict[Edge, str]], hosts: t.Mapping[str, Host], guests: t.Mapping[str, list[Part]]) -> Part:
    mine = [design for design in designs if host in design.network["hosts"]]
    if not mine:
        return dict(EMPTY)
    links = [
        _link(design, pair, host, role, hosts)
        for design, each in zip(designs, roles)
        for pair, role in sorted(each.items())
        if host in pair and pair in design.choices
    ]
    networks = [
        {
            "name": design.network["name"], "bridge": model.bridge_name(design.network["name"]), "mtu": design.mtu,
            "spoofing": design.network["spoofing"],
        }
        for design in mine
    ]
    return {
        "networks": networks,
        "links": links,
        "guests": guests.get(host, []),
        "forwarding": forwarding_of(links, guests),
        "peers": sorted({link["remote"] for link in links if link["transport"] == "vxlan"}),
    }


def with_keys(phases: t.Sequence[t.Mapping[str, Part]], keys: t.Mapping[str, t.Mapping[str, str]], host_keys: t.Mapping[str, str]) -> list[dict[str, Part]]:
    """The phases with what SSH links need: at the server the client's key, at the client the server's host key.

    :param keys: by host and device, the public key of the link's client. :param host_keys: by host.
    """

    def completed(link: Part) -> Part:
        if link["transport"] != "ssh":
            return dict(link)
        if link["end"] == "client":
            return {**link, "host_key": host_keys.get(link["peer"], "")}
        return {**link, "client_key": keys.get(link["peer"], {}).get(link["device"], "")}

    return [{host: {**part, "links": [completed(link) for link in part["links"]]} for host, part in phase.items()} for phase in phases]
