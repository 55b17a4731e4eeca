# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each host is to have of the networks, from what all of them have (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Part
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.phases import overlay_plan
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.records import Host, Machine, Probe
from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Endpoint


class OverlayHost(Endpoint, total=False):
    """A host that networks are planned for. One without a ``part`` could not be reached: what it has stays.

    :ivar probe: what the module ``overlay_probe`` found.
    :ivar part: what the host has now.
    :ivar machines: what the module ``machine_info`` returned; ``None`` where libvirt didn't answer, or there is none.
    """

    probe: Probe
    part: Part
    machines: list[Machine] | None


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
    known = _resolved(reached)
    try:
        plan = overlay_plan(
            networks,
            {name: _host(name, host, known) for name, host in hosts.items()},
            {name: host.get("probe") or Probe() for name, host in reached.items()},
            {name: host["part"] for name, host in reached.items()},
            [_on(name, machine) for name, host in reached.items() for machine in _machines(host) if machine.get("mac")],
            known_keys,
        )
    except GridError as exc:
        return {"name": exc.object or "overlay", "changed": False, **exc.result()}
    rows = [
        {**link, "name": f"{link['network']} {' - '.join(link['between'])}", "changed": False} for link in plan["links"]
    ]
    return {**plan, "rows": rows}


def _resolved(reached: t.Mapping[str, OverlayHost]) -> dict[str, dict[str, str]]:
    """By host, the addresses of the others as it has resolved their names."""
    paths = {name: (host.get("probe") or Probe()).get("paths") or {} for name, host in reached.items()}
    return {
        name: {peer: path["address"] for peer, path in found.items() if path.get("address")}
        for name, found in paths.items()
    }


def _host(name: str, host: OverlayHost, known: t.Mapping[str, t.Mapping[str, str]]) -> Host:
    """The host as the plan takes it. Its address is that which all others have for its name, where they agree.

    :param known: by host that was reached, what :func:`_resolved` returned.
    """
    others = {addresses[name] for addresses in known.values() if name in addresses}
    address = next(iter(others)) if len(others) == 1 else host["address"]
    found: Host = {"address": address, "port": host["port"], "site": host["site"], "reached": name in known}
    if known.get(name):
        found["resolved"] = dict(known[name])
    return found


def _on(provider: str, machine: Machine) -> Machine:
    """A machine that was seen on a provider, as the plan takes it."""
    seen: Machine = {"provider": provider, "mac": machine.get("mac")}
    if "network" in machine:
        seen["network"] = machine["network"]
    if "name" in machine:
        seen["name"] = machine["name"]
    return seen


def _machines(host: OverlayHost) -> t.Sequence[Machine]:
    """A host's machines. Where libvirt doesn't answer, they are as they were."""
    seen = host.get("machines")
    # Older versions of Ansible make an empty text of "none".
    guests = [Machine(network=guest["network"], mac=guest["mac"]) for guest in host["part"].get("guests") or ()]
    return seen if isinstance(seen, list) else guests
