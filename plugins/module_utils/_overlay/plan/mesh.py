# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of a network can be on its EVPN mesh, where every host reaches every other, and their ends of it (pure).

In a plan the mesh is a node of the tree without a name, and a host's place on it is a link with that node.
"""

from __future__ import annotations

import ipaddress
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import LinkEnd
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import model, transport
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.records import Facts, Host, LinkRow
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.topology import Edge, edge

Hosts = t.Mapping[str, Host]

NODE, KIND = "", "evpn"


def place(host: str) -> Edge:
    """A host's place on the mesh, as a link of the tree."""
    return (NODE, host)


def _unfit(host: str, hosts: Hosts, facts: Facts) -> str | None:
    """Why a host can't be on any mesh, or ``None``. FRR needs an IPv4 address of the host's own at which others reach
    it."""
    probe = facts.get(host) or {}
    address, own = str(hosts[host]["address"]), probe.get("addresses")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return f"{host}: {address} is no IPv4 address (give virtuoso_address)"
    return (
        None
        if own is None or address in own
        else f"{host}: {address}, where others reach it, is not an address of its own"
    )


def mesh_of(
    network: model.Network, reached: t.Collection[str], kept: t.Collection[str], hosts: Hosts, facts: Facts
) -> dict[str, str | None]:
    """Decide which hosts are on the mesh. The home always is, because its BGP speaker has sessions with all others.

    Where two hosts can't reach each other, the one that fewer others reach is left out.

    :param reached: hosts that answered in this run. :param kept: hosts on the mesh that didn't answer; they stay.
    :returns: for each reached host ``None`` if it is on the mesh, or why it isn't.
    :raises GridError: ``evpn_unusable``, ``foreign_frr``.
    """
    home = network["home"]
    why: dict[str, str | None] = {host: _unfit(host, hosts, facts) for host in reached}
    fit = {host for host in reached if why[host] is None}
    troubles = {
        edge(one, other): trouble
        for one in fit
        for other in fit
        if one < other
        for trouble in [transport.evpn_trouble(network, one, other, facts)]
        if trouble
    }
    while True:
        count = {host: sum(host in pair for pair in troubles if fit.issuperset(pair)) for host in fit}
        barred = [host for host in fit if home in fit and edge(home, host) in troubles and host != home]
        barred = barred or [host for host in fit if host != home and count[host]]
        if not barred:
            break
        worst = max(barred, key=lambda host: (count[host], host))
        why[worst] = "; ".join(
            text for pair, text in sorted(troubles.items()) if worst in pair and fit.issuperset(pair)
        )
        fit.discard(worst)
    _require(network, fit, kept, why, len(reached) + len(kept))
    for host in sorted(fit):
        probe = facts.get(host) or {}
        foreign = (probe.get("kernel") or {}).get("evpn")
        if foreign:
            raise GridError(
                "foreign_frr",
                f"{host}: {foreign}",
                host=host,
                object=f"network {network['name']}",
                tried="put the host on its EVPN mesh",
                remedy="Stop and remove that FRR, or give the network the topology star",
            )
    return {host: None if host in fit else why[host] for host in reached}


def _require(
    network: model.Network,
    fit: t.Collection[str],
    kept: t.Collection[str],
    why: t.Mapping[str, str | None],
    number: int,
) -> None:
    if number < 2 or (network["home"] in {*fit, *kept} and len(fit) + len(kept) > 1):
        return
    reasons = "; ".join(text for dummy, text in sorted(why.items()) if text)
    raise GridError(
        "evpn_unusable",
        f"no two hosts of it with its home reach each other directly: {reasons or 'no other host answers'}",
        object=f"network {network['name']}",
        tried="plan its EVPN mesh",
        remedy="Admit UDP port 4789 and TCP port 179 between its hosts, or give it the topology star",
        probes={host: text for host, text in why.items() if text},
    )


def end_of(network: model.Network, host: str, role: str, on_it: t.Collection[str], hosts: Hosts) -> LinkEnd:
    """A host's end of the mesh. The home is the route reflector (RFC 4456); the others have a session with it only."""
    others = sorted(set(on_it) - {host})
    return {
        "device": model.mesh_device(network["name"]),
        "network": network["name"],
        "peer": "*",
        "role": role,
        "transport": KIND,
        "reason": "UDP passes between all of them",
        "vni": network["vni"],
        "local": hosts[host]["address"],
        "asn": network["asn"],
        "peers": [
            {"name": name, "address": hosts[name]["address"], "speaks": network["home"] in (host, name)}
            for name in others
        ],
    }


def rows_of(network: model.Network, on_it: t.Collection[str], mtu: int, hosts: Hosts) -> list[LinkRow]:
    """The mesh's rows for the report and the store: each host's session with the home. They have no VNI of their
    own."""
    home = network["home"]
    return [
        {
            "network": network["name"],
            "between": [home, host],
            "sites": [hosts[name].get("site") or name for name in (home, host)],
            "kind": KIND,
            "transport": KIND,
            "reason": "frames go directly between all hosts of the mesh",
            "rtt": None,
            "mtu": mtu,
            "vni": None,
        }
        for host in sorted(set(on_it) - {home})
    ]


def without(members: t.Mapping[str, str | None]) -> dict[str, str]:
    """The hosts that are not on the mesh, and why."""
    return {host: why for host, why in members.items() if why}
