# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and links of the overlay in the store: compared with what the playbook ``overlay`` made, and updated."""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import mac_prefix
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    LinkDetails,
    LinkRow,
    NetworkRow,
    Values,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason


class _Named(t.TypedDict):
    name: str


class NetworkGiven(_Named, total=False):
    """A network as the option ``networks`` gives it; a field that is left out keeps its value in the store."""

    home: str | None  # name of a host
    vni: int
    mtu: int
    sites: list[str]


class _Ends(t.TypedDict):
    network: str
    between: list[str]  # names of its two hosts
    sites: list[str]  # the sites of these hosts
    kind: str  # tree or shortcut
    transport: str


class LinkGiven(_Ends, total=False):
    """A link as the option ``links`` gives it."""

    reason: str | None  # why it has this transport
    vni: int | None
    mtu: int | None


class LinkState(t.TypedDict):
    """What a link has that can change."""

    kind: str
    transport: str
    vni: int | None
    mtu: int | None
    state: str
    details: LinkDetails


def link_name(link: LinkGiven) -> str:
    """What tells a link from others: its network and its two hosts."""
    return f"{link['network']} {' - '.join(sorted(link['between']))}"


def _networks_now(connection: sa.Connection) -> dict[str, NetworkRow]:
    rows = connection.execute(sa.select(schema.NETWORK)).mappings()
    return {row["name"]: t.cast(NetworkRow, dict(row)) for row in rows}


def _links_now(connection: sa.Connection) -> dict[str, LinkRow]:
    rows = connection.execute(sa.select(schema.LINK)).mappings()
    return {row["details"].get("name"): t.cast(LinkRow, dict(row)) for row in rows}


def _differs(before: Values | None, wanted: Values) -> bool:
    return before is None or any(before[key] != value for key, value in wanted.items())


def _result(name: str, *, changed: bool, action: str) -> Result:
    return {"name": name, "changed": changed, "actions": [action] if changed else []}


class Overlay:
    """Compares the store with what is there now, and writes the differences. Networks and links that are not listed any
    more are deleted."""

    def __init__(self, connection: sa.Connection, coming: t.Collection[str] = ()) -> None:
        """:param coming: hosts that are registered by the time :meth:`write` is called."""
        self.connection = connection
        self._coming = coming
        self._steps: list[t.Callable[[], None]] = []

    def see_networks(self, given: t.Sequence[NetworkGiven]) -> list[Result]:
        """Decide on the networks; one result for each, then for each that is deleted.

        :param given: all networks of the overlay.
        """
        known, results = _networks_now(self.connection), []
        hosts = query.host_uuids(self.connection)
        names = {uuid: name for name, uuid in hosts.items()}
        places = self._places()
        for entry in given:
            name = entry["name"]
            wanted: dict[str, object] = {}
            if "vni" in entry:
                wanted["vni"] = entry["vni"]
            if "mtu" in entry:
                wanted["mtu"] = entry["mtu"]
            if "home" in entry:
                # A home that isn't registered can't be referred to.
                wanted["home"] = entry["home"] if entry["home"] in (*hosts, *self._coming) else None
            row, there = known.get(name), places.get(name, {})
            before = None if row is None else {**row, "home": names.get(row["home"] or "")}
            sites = {site: mac_prefix(name, site) for site in entry["sites"] or []} if "sites" in entry else there
            changed = _differs(before, wanted) or there != sites
            if changed:
                self._steps.append(functools.partial(self._write_network, name, wanted, sites))
            results.append(_result(name, changed=changed, action="register"))
        # A provider's own libvirt network has no VNI: it is on no overlay, and stays.
        listed = {entry["name"] for entry in given}
        gone = {name: row["uuid"] for name, row in known.items() if row["vni"] is not None and name not in listed}
        return results + self._forget(gone)

    def _forget(self, gone: t.Mapping[str, str]) -> list[Result]:
        """Delete what is gone, before anything is written, so that its VNI is free again.

        :param gone: uuids by name.
        """
        if gone:
            self._steps.insert(0, functools.partial(writing.delete, self.connection, list(gone.values())))
        return [_result(name, changed=True, action="forget") for name in gone]

    def _places(self) -> dict[str, dict[str, str]]:
        """The MAC address prefix at each site, by the names of network and site."""
        table, network, site = schema.NETWORK_SITE, schema.NETWORK, schema.SITE
        chosen = sa.select(network.c.name, site.c.name.label("site"), table.c.mac_prefix).select_from(
            table.join(network, network.c.uuid == table.c.network).join(site, site.c.uuid == table.c.site)
        )
        found: dict[str, dict[str, str]] = {}
        for row in self.connection.execute(chosen):
            found.setdefault(row.name, {})[row.site] = row.mac_prefix
        return found

    def _write_network(self, name: str, wanted: Values, sites: t.Mapping[str, str]) -> None:
        uuid = writing.ensure_networks(self.connection, [name])[name]
        if wanted.get("home"):
            wanted = {**wanted, "home": query.host_uuids(self.connection)[str(wanted["home"])]}
        writing.update(self.connection, schema.NETWORK, uuid, wanted)
        table, known = schema.NETWORK_SITE, writing.ensure_sites(self.connection, sites)
        self.connection.execute(table.delete().where(table.c.network == uuid))
        writing.insert(
            self.connection,
            table,
            [{"network": uuid, "site": known[site], "mac_prefix": prefix} for site, prefix in sites.items()],
        )

    def see_links(self, given: t.Sequence[LinkGiven]) -> list[Result]:
        """Decide on the links; one result for each, then for each that is deleted.

        :param given: all links of the overlay.
        """
        known, results = _links_now(self.connection), []
        for entry in given:
            name = link_name(entry)
            wanted: LinkState = {
                "kind": entry["kind"],
                "transport": entry["transport"],
                "vni": entry.get("vni"),
                "mtu": entry.get("mtu"),
                "state": "made",
                "details": {"name": name, "between": list(entry["between"]), "reason": entry.get("reason")},
            }
            before = known.get(name)
            self._steps.append(functools.partial(self._write_link, entry, wanted, before))
            results.append(_result(name, changed=_differs(before, wanted), action="register"))
        listed = {link_name(entry) for entry in given}
        return results + self._forget({name: row["uuid"] for name, row in known.items() if name not in listed})

    def _write_link(self, entry: LinkGiven, wanted: LinkState, before: LinkRow | None) -> None:
        if before is not None:
            writing.update(self.connection, schema.LINK, before["uuid"], {**wanted, "seen": writing.now()})
            return
        sites = writing.ensure_sites(self.connection, entry["sites"])
        uuid = writing.new_uuid()
        writing.add_objects(self.connection, "link", [{"uuid": uuid}])
        ends = {"site_a": sites[entry["sites"][0]], "site_b": sites[entry["sites"][-1]]}
        writing.insert(self.connection, schema.LINK, [{"uuid": uuid, **ends, **wanted, "seen": writing.now()}])
        network = writing.ensure_networks(self.connection, [entry["network"]])[entry["network"]]
        writing.insert(self.connection, schema.LINK_NETWORK, [{"link": uuid, "network": network}])

    def write(self) -> None:
        """Write what was decided: deletions first."""
        for step in self._steps:
            step()
