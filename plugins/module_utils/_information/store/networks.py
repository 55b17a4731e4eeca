# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and links in the store, as the playbook ``overlay`` made them."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import mac_prefix
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR tells

Row = t.Dict[str, t.Any]
Result = t.Dict[str, t.Any]


def link_name(row: t.Mapping[str, t.Any]) -> str:
    """What tells a link from others: its network and its two hosts."""
    return f"{row['network']} {' - '.join(sorted(row['between']))}"


def _networks_now(connection: sa.Connection) -> dict[str, Row]:
    table = schema.NETWORK
    return {row.name: dict(row._mapping) for row in connection.execute(sa.select(table))}  # pylint: disable=protected-access


def _links_now(connection: sa.Connection) -> dict[str, Row]:
    return {row.details.get("name"): dict(row._mapping) for row in connection.execute(sa.select(schema.LINK))}  # pylint: disable=protected-access


class Overlay:
    """Compares the store with what is there now, and writes what differs. A network's and a link's rows go when they
    are gone."""

    def __init__(self, connection: sa.Connection, coming: t.Collection[str] = ()) -> None:
        """:param coming: hosts that are registered by the time :meth:`write` is called."""
        self.connection = connection
        self._coming = coming
        self._steps: list[t.Callable[[], None]] = []

    def see_networks(self, given: t.Sequence[t.Mapping[str, t.Any]]) -> list[Result]:
        """:param given: ``name``, ``home``, ``vni``, ``mtu`` and ``sites``, all that there are; what one leaves out
        stays as it is."""
        known, results = _networks_now(self.connection), []
        hosts = query.host_uuids(self.connection)
        names = {uuid: name for name, uuid in hosts.items()}
        places = self._places()
        for entry in given:
            row = {key: entry[key] for key in ("vni", "mtu") if key in entry}
            # A home that isn't registered can't be referred to.
            row.update(
                {"home": entry["home"] if entry["home"] in (*hosts, *self._coming) else None} if "home" in entry else {}
            )
            before, there = known.get(entry["name"]), places.get(entry["name"], {})
            if before is not None:
                before = {**before, "home": names.get(before["home"])}
            sites = (
                {site: mac_prefix(entry["name"], site) for site in entry.get("sites") or []}
                if "sites" in entry
                else there
            )
            changed = before is None or any(before[key] != value for key, value in row.items()) or there != sites
            if changed:
                self._steps.append(
                    lambda name=entry["name"], row=row, sites=sites: self._write_network(name, row, sites)
                )
            results.append({"name": entry["name"], "changed": changed, "actions": ["register"] if changed else []})
        # Libvirt's own networks, which have no VNI, are of no overlay.
        gone = [
            row
            for name, row in known.items()
            if row["vni"] is not None and name not in {entry["name"] for entry in given}
        ]
        if gone:
            self._steps.insert(0, lambda: writing.delete(self.connection, [row["uuid"] for row in gone]))
        return results + [{"name": row["name"], "changed": True, "actions": ["forget"]} for row in gone]

    def _places(self) -> dict[str, dict[str, str]]:
        table, network, site = schema.NETWORK_SITE, schema.NETWORK, schema.SITE
        chosen = sa.select(network.c.name, site.c.name.label("site"), table.c.mac_prefix).select_from(
            table.join(network, network.c.uuid == table.c.network).join(site, site.c.uuid == table.c.site)
        )
        found: dict[str, dict[str, str]] = {}
        for row in self.connection.execute(chosen):
            found.setdefault(row.name, {})[row.site] = row.mac_prefix
        return found

    def _write_network(self, name: str, row: Row, sites: t.Mapping[str, str]) -> None:
        uuid = writing.ensure_networks(self.connection, [name])[name]
        if row.get("home"):
            row = {**row, "home": query.host_uuids(self.connection)[row["home"]]}
        writing.update(self.connection, schema.NETWORK, uuid, row)
        table, known = schema.NETWORK_SITE, writing.ensure_sites(self.connection, sites)
        self.connection.execute(table.delete().where(table.c.network == uuid))
        writing.insert(
            self.connection,
            table,
            [{"network": uuid, "site": known[site], "mac_prefix": prefix} for site, prefix in sites.items()],
        )

    def see_links(self, given: t.Sequence[t.Mapping[str, t.Any]]) -> list[Result]:
        """:param given: ``network``, ``between`` (two hosts), ``sites`` (theirs), ``kind``, ``transport``, ``reason``,
        ``vni``, ``mtu``, all that there are."""
        known, results = _links_now(self.connection), []
        for entry in given:
            name = link_name(entry)
            row = {
                "kind": entry["kind"],
                "transport": entry["transport"],
                "vni": entry.get("vni"),
                "mtu": entry.get("mtu"),
                "state": "made",
                "details": {"name": name, "between": list(entry["between"]), "reason": entry.get("reason")},
            }
            before = known.get(name)
            changed = before is None or any(before[key] != value for key, value in row.items())
            self._steps.append(lambda entry=entry, row=row, before=before: self._write_link(entry, row, before))
            results.append({"name": name, "changed": changed, "actions": ["register"] if changed else []})
        gone = {name: row for name, row in known.items() if name not in {link_name(entry) for entry in given}}
        if gone:
            self._steps.insert(0, lambda: writing.delete(self.connection, [row["uuid"] for row in gone.values()]))
        return results + [{"name": name, "changed": True, "actions": ["forget"]} for name in gone]

    def _write_link(self, entry: t.Mapping[str, t.Any], row: Row, before: Row | None) -> None:
        if before is not None:
            writing.update(self.connection, schema.LINK, before["uuid"], {**row, "seen": writing.now()})
            return
        sites = writing.ensure_sites(self.connection, entry["sites"])
        uuid = writing.new_uuid()
        writing.add_objects(self.connection, "link", [{"uuid": uuid}])
        ends = {"site_a": sites[entry["sites"][0]], "site_b": sites[entry["sites"][-1]]}
        writing.insert(self.connection, schema.LINK, [{"uuid": uuid, **ends, **row, "seen": writing.now()}])
        network = writing.ensure_networks(self.connection, [entry["network"]])[entry["network"]]
        writing.insert(self.connection, schema.LINK_NETWORK, [{"link": uuid, "network": network}])

    def write(self) -> None:
        """Write what was decided: what goes first, so that its VNIs are free."""
        for step in self._steps:
            step()
