# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By what two hosts are linked: chosen from what probing found, with the reason (pure)."""

# Each pair is looked at from both ends.
# pylint: disable=arguments-out-of-order

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.model import OVERHEAD, TRANSPORTS, Network

Facts = t.Mapping[str, t.Any]
Choice = t.Dict[str, t.Any]


def _path(facts: Facts, one: str, other: str) -> t.Mapping[str, t.Any]:
    return (facts.get(one) or {}).get("paths", {}).get(other) or {}


def _udp_trouble(facts: Facts, one: str, other: str) -> str | None:
    """Why UDP doesn't pass both ways unasked."""
    there = _path(facts, other, one).get("udp_in") or _path(facts, one, other).get("udp_out")
    back = _path(facts, one, other).get("udp_in") or _path(facts, other, one).get("udp_out")
    lost = [
        f"from {sender} to {receiver}"
        for sender, receiver, passed in ((one, other, there), (other, one, back))
        if not passed
    ]
    return f"no UDP {' and '.join(lost)}" if lost else None


def _troubles(facts: Facts, network: Network, one: str, other: str) -> dict[str, str | None]:
    """For each transport ``None``, or why it is not to be had."""
    udp = _udp_trouble(facts, one, other)

    def kernel(transport: str) -> str | None:
        lacking = [
            (host, (facts.get(host) or {}).get("kernel", {}).get(transport, "it was not looked at"))
            for host in (one, other)
        ]
        return next((f"{host}: {why}" for host, why in lacking if why), None)

    ssh = None
    if not (_path(facts, one, other).get("ssh") or _path(facts, other, one).get("ssh")):
        told = [
            f"from {a} to {b}: {_path(facts, a, b).get('ssh_trouble') or 'not probed'}"
            for a, b in ((one, other), (other, one))
        ]
        ssh = f"no SSH {'; '.join(told)}"
    return {
        "vxlan": "the network must be encrypted" if network["encrypted"] else kernel("vxlan") or udp,
        "wireguard": kernel("wireguard") or kernel("vxlan") or udp,
        "ssh": ssh,
    }


def choose(network: Network, one: str, other: str, facts: Facts) -> Choice:
    """The transport between two hosts: ``transport``, ``reason``, ``mtu`` (of frames in it; ``None`` for any), and for
    ssh ``client`` and ``server``.

    The first of vxlan, wireguard and ssh that passes: without encryption there is less to do. What the network names
    for the pair is taken, or refused.

    :raises GridError: ``no_path`` with all failed probes, ``transport_unusable``.
    """
    troubles = _troubles(facts, network, one, other)
    wanted = network["transports"].get(tuple(sorted((one, other))))
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
    choice: Choice = {"transport": transport, "reason": reason, "rtt": latency(facts, one, other)}
    if transport == "ssh":
        # The one that can be reached is the server; where both can, the one with the smaller name, always the same.
        server = other if _path(facts, one, other).get("ssh") else one
        if _path(facts, one, other).get("ssh") and _path(facts, other, one).get("ssh"):
            server = min(one, other)
        return {**choice, "mtu": None, "server": server, "client": one if server == other else other}
    sizes = [
        size for size in (_path(facts, one, other).get("path_mtu"), _path(facts, other, one).get("path_mtu")) if size
    ]
    return {**choice, "mtu": (min(sizes) if sizes else 1500) - OVERHEAD[transport]}


def choose_tap(network: Network, one: str, other: str, facts: Facts, why: str) -> Choice:
    """As :func:`choose`, for a host that can't be on an EVPN network itself: a tap, because FRR takes any VXLAN device
    of a bridge for the network's own."""
    return {
        **choose({**network, "transports": {tuple(sorted((one, other))): "ssh"}}, one, other, facts),
        "reason": f"not by EVPN: {why}",
    }


def evpn_trouble(network: Network, one: str, other: str, facts: Facts) -> str | None:
    """Why two hosts can't be on an EVPN network together, or ``None``."""
    wanted = network["transports"].get(tuple(sorted((one, other))))
    if wanted not in (None, "vxlan"):
        return f"{one} - {other}: the network says {wanted}"
    trouble = _troubles(facts, network, one, other)["vxlan"]
    return f"{one} - {other}: {trouble}" if trouble else None


def latency(facts: Facts, one: str, other: str) -> float | None:
    """Seconds there and back, the least that either saw."""
    seen = [
        value
        for value in (_path(facts, one, other).get("rtt"), _path(facts, other, one).get("rtt"))
        if value is not None
    ]
    return min(seen) if seen else None
