# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The traffic matrix for people: with the machines' names, and summed over all hosts for the report (pure)."""

from __future__ import annotations

import typing as t


class Pair(t.TypedDict):
    """What one MAC address has sent to another."""

    source: str
    destination: str
    bytes: int
    packets: int


class NamedPair(Pair):
    """The same with the machines' names; ``None`` where no machine has the address."""

    source_name: t.Optional[str]
    destination_name: t.Optional[str]


class Carried(t.TypedDict):
    """What a link's device received and sent."""

    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int


class CarryingLink(Carried):
    """A link of a host, as the module ``overlay_info`` returns it; here without its other fields."""

    network: str
    peer: str
    transport: str


class HostTraffic(t.TypedDict, total=False):
    """What the report reads of a result of the module ``overlay_info``."""

    traffic: t.List[NamedPair]
    links: t.List[CarryingLink]


class TrafficRow(t.TypedDict):
    """A row of the report; ``kind`` is ``pair`` or ``link``."""

    name: str
    kind: str
    bytes: int
    packets: int
    changed: bool


def named(rows: t.Sequence[Pair], names: t.Mapping[str, str]) -> list[NamedPair]:
    """The pairs of a host with the machines' names. :param names: by MAC address."""
    known = {str(mac).lower(): str(name) for mac, name in names.items()}
    return [
        {
            **row,
            "source_name": known.get(row["source"].lower()),
            "destination_name": known.get(row["destination"].lower()),
        }
        for row in rows
    ]


def traffic_rows(hosts: t.Mapping[str, HostTraffic]) -> list[TrafficRow]:
    """The rows of the report: each pair once, because a machine that moved was counted on several hosts; then each
    link, each way.

    :param hosts: results of the module ``overlay_info`` by host.
    """
    pairs: dict[str, TrafficRow] = {}
    links: list[TrafficRow] = []
    for host, info in hosts.items():
        for row in info.get("traffic") or []:
            source = row.get("source_name") or row["source"]
            name = f"{source} > {row.get('destination_name') or row['destination']}"
            sums = pairs.setdefault(name, {"name": name, "kind": "pair", "bytes": 0, "packets": 0, "changed": False})
            sums["bytes"] += row["bytes"]
            sums["packets"] += row["packets"]
        for link in info.get("links") or []:
            name = f"{link['network']}: {host} > {link['peer']} ({link['transport']})"
            links.append(
                {
                    "name": name,
                    "kind": "link",
                    "bytes": link["tx_bytes"],
                    "packets": link["tx_packets"],
                    "changed": False,
                }
            )
    return sorted(pairs.values(), key=lambda row: (-row["bytes"], row["name"])) + links
