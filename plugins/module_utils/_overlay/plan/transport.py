# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses the transport of a link between two hosts from what probing found, and gives the reason (pure)."""

# Each pair is checked from both ends.
# pylint: disable=arguments-out-of-order

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.model import OVERHEAD, TRANSPORTS, Network
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.records import Facts, Path, Probe
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.topology import edge


class _Choice(t.TypedDict):
    transport: str
    reason: str
    mtu: t.Optional[int]


class Choice(_Choice, total=False):
    """A transport and why it was chosen.

    ``mtu``: bytes of the frames that it can carry, ``None`` for any. ``rtt``: seconds. ``client`` and ``server``: of an
    SSH connection. ``kept``: only of a link to a host that wasn't reached, which stays as it is; whether it floods.
    """

    rtt: t.Optional[float]
    client: str
    server: str
    kept: bool


def _probe(facts: Facts, host: str) -> Probe:
    return facts.get(host) or {}


def _path(facts: Facts, one: str, other: str) -> Path:
    return (_probe(facts, one).get("paths") or {}).get(other) or {}


def _udp_trouble(facts: Facts, one: str, other: str) -> str | None:
    """Why UDP doesn't pass both ways, or ``None``."""
    there = _path(facts, other, one).get("udp_in") or _path(facts, one, other).get("udp_out")
    back = _path(facts, one, other).get("udp_in") or _path(facts, other, one).get("udp_out")
    lost = [
        f"from {sender} to {receiver}"
        for sender, receiver, passed in ((one, other, there), (other, one, back))
        if not passed
    ]
    return f"no UDP {' and '.join(lost)}" if lost else None


def _troubles(facts: Facts, network: Network, one: str, other: str) -> dict[str, str | None]:
    """For each transport ``None``, or why it can't be used."""
    udp = _udp_trouble(facts, one, other)

    def kernel(transport: str) -> str | None:
        lacking = [
            (host, (_probe(facts, host).get("kernel") or {}).get(transport, "it was not looked at"))
            for host in (one, other)
        ]
        return next((f"{host}: {why}" for host, why in lacking if why), None)

    ssh = None
    if not (_path(facts, one, other).get("ssh") or _path(facts, other, one).get("ssh")):
        why = [
            f"from {a} to {b}: {_path(facts, a, b).get('ssh_trouble') or 'not probed'}"
            for a, b in ((one, other), (other, one))
        ]
        ssh = f"no SSH {'; '.join(why)}"
    return {
        "vxlan": "the network must be encrypted" if network["encrypted"] else kernel("vxlan") or udp,
        "wireguard": kernel("wireguard") or kernel("vxlan") or udp,
        "ssh": ssh,
    }


def choose(network: Network, one: str, other: str, facts: Facts) -> Choice:
    """Choose the transport between two hosts: the one that the network names for them, or the first that works of
    vxlan, wireguard and ssh, the cheapest first.

    :raises GridError: ``no_path`` with all failed probes; ``transport_unusable`` where the named one doesn't work.
    """
    troubles = _troubles(facts, network, one, other)
    wanted = network["transports"].get(edge(one, other))
    about = f"link {one} - {other} of network {network['name']}"
    if wanted and troubles[wanted]:
        raise GridError(
            "transport_unusable",
            f"{wanted} was asked for and can't be: {troubles[wanted]}",
            object=about,
            tried="choose a transport",
            remedy="Leave the transport out of virtuoso_networks to have the best that passes",
            probes=dict(troubles),
        )
    usable = [transport for transport in TRANSPORTS if troubles[transport] is None]
    if not usable:
        raise GridError(
            "no_path",
            "nothing passes between them: " + "; ".join(f"{name}: {why}" for name, why in troubles.items()),
            object=about,
            tried="choose a transport",
            remedy="Admit UDP port 4789 both ways, or TCP to the SSH server of one of them",
            probes=dict(troubles),
        )
    transport = wanted or usable[0]
    passed_over = [f"{name}: {troubles[name]}" for name in TRANSPORTS[: TRANSPORTS.index(transport)] if troubles[name]]
    reason = "as the network says" if wanted else "; ".join(passed_over) or "UDP passes both ways"
    choice: Choice = {"transport": transport, "reason": reason, "mtu": None, "rtt": latency(facts, one, other)}
    if transport == "ssh":
        # The host that can be reached is the server; of two, the one with the smaller name, so it is always the same.
        server = other if _path(facts, one, other).get("ssh") else one
        if _path(facts, one, other).get("ssh") and _path(facts, other, one).get("ssh"):
            server = min(one, other)
        return {**choice, "server": server, "client": one if server == other else other}
    sizes = [
        size for size in (_path(facts, one, other).get("path_mtu"), _path(facts, other, one).get("path_mtu")) if size
    ]
    return {**choice, "mtu": (min(sizes) if sizes else 1500) - OVERHEAD[transport]}


def choose_tap(network: Network, one: str, other: str, facts: Facts, why: str) -> Choice:
    """Like :func:`choose`, for a host that can't be on an EVPN mesh: always a tap over SSH, because FRR takes every
    VXLAN device on a bridge for the mesh's.

    :param why: the host can't be on the mesh.
    """
    return {
        **choose({**network, "transports": {edge(one, other): "ssh"}}, one, other, facts),
        "reason": f"not by EVPN: {why}",
    }


def evpn_trouble(network: Network, one: str, other: str, facts: Facts) -> str | None:
    """Why two hosts can't be on an EVPN mesh together, or ``None``."""
    wanted = network["transports"].get(edge(one, other))
    if wanted not in (None, "vxlan"):
        return f"{one} - {other}: the network says {wanted}"
    trouble = _troubles(facts, network, one, other)["vxlan"]
    return f"{one} - {other}: {trouble}" if trouble else None


def latency(facts: Facts, one: str, other: str) -> float | None:
    """Seconds of a round trip between two hosts, the lower of both measurements; ``None`` where there is none."""
    seen = [
        value
        for value in (_path(facts, one, other).get("rtt"), _path(facts, other, one).get("rtt"))
        if value is not None
    ]
    return min(seen) if seen else None
