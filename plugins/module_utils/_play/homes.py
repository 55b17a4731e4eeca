# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment tells homes of machines, and what it hears from them (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import mac_address

Item = t.Dict[str, t.Any]
Items = t.List[Item]


def home_machines(
    machines: t.Sequence[t.Mapping[str, t.Any]],
    homes: t.Mapping[str, t.Sequence[t.Mapping[str, t.Any]] | None],
    known: t.Sequence[t.Mapping[str, t.Any]] = (),
) -> Items:
    """Machines by the home whose network they are on: ``home``, ``network``, ``dhcp`` (whether its DHCP server is the
    role's), ``machines``.

    :param machines: entries of the module ``machine``.
    :param homes: ``virtuoso_home_networks`` of each home.
    :param known: what is known of the machines' MAC addresses, ``uuid`` and ``mac``: one that has moved keeps the one
        that it had.
    """
    macs = {row.get("uuid"): row["mac"] for row in known if row.get("mac")}
    found: Items = []
    for home, networks in homes.items():
        for network in networks or ():
            mine = [
                {
                    **{key: machine.get(key) for key in ("uuid", "name", "network")},
                    "mac": macs.get(machine.get("uuid"))
                    or mac_address(machine["network"], machine.get("site") or "site", machine["uuid"]),
                    "address": (machine.get("address") or {}).get("ip"),
                }
                for machine in machines
                if machine.get("network") == network["network"] and machine.get("uuid")
            ]
            if mine:
                found.append(
                    {"home": home, "network": network["network"], "dhcp": bool(network.get("dhcp")), "machines": mine}
                )
    return found


def home_leases(results: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """What several homes said of machines' addresses, by MAC address: results of the module ``lease_info``."""
    return {mac: lease for result in results for mac, lease in (result.get("leases") or {}).items()}


def home_refusals(results: t.Sequence[t.Mapping[str, t.Any]]) -> Items:
    """Rows for the report: machines that their home couldn't be told of.
    :param results: of a loop of the module ``lease`` over :func:`home_machines`."""
    rows: Items = []
    for result in results:
        told = result.get("machines")
        if isinstance(told, list):
            rows += [
                {key: row.get(key) for key in ("name", "uuid", "changed", "failed", "msg", "failure")}
                for row in told
                if row.get("failed")
            ]
            continue
        if not any(result.get(key) for key in ("failed", "failure", "unreachable")):
            continue
        share = result.get("item") or {}
        failure = result.get("failure") or {
            "code": "home_unreachable",
            "host": share.get("home"),
            "remedy": "See that the home is up, then run again",
        }
        msg = f"{share.get('home')}: {result.get('msg') or 'the home could not be reached'}"
        rows += [
            {
                **{key: machine[key] for key in ("name", "uuid")},
                **{
                    "changed": False,
                    "failed": True,
                    "msg": f"machine {machine['name']}: {msg}",
                    "failure": dict(failure),
                },
            }
            for machine in share.get("machines") or ()
        ]
    return rows
