# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who talks to whom, by the machines' names, over all hosts (pure)."""

from __future__ import annotations

import typing as t

Row = t.Dict[str, t.Any]


def named(rows: t.Sequence[Row], names: t.Mapping[str, str]) -> list[Row]:
    """The rows of a host's matrix with the names of the machines that have these MAC addresses; ``None`` where none
    has."""
    known = {str(mac).lower(): str(name) for mac, name in names.items()}
    return [
        {**row, **{f"{end}_name": known.get(row[end].lower()) for end in ("source", "destination")}} for row in rows
    ]


def traffic_rows(hosts: t.Mapping[str, Row]) -> list[Row]:
    """Rows for the report: each pair once, for a machine that moved was counted on more than one host; then each link,
    each way.

    :param hosts: results of the module ``overlay_info`` by host.
    """
    pairs: dict[str, Row] = {}
    links: list[Row] = []
    for host, told in hosts.items():
        for row in told.get("traffic") or []:
            name = " > ".join(row.get(f"{end}_name") or row[end] for end in ("source", "destination"))
            sums = pairs.setdefault(name, {"name": name, "kind": "pair", "bytes": 0, "packets": 0, "changed": False})
            sums.update({key: sums[key] + row[key] for key in ("bytes", "packets")})
        for link in told.get("links") or []:
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
