# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the hosts of the grid reach each other, by the variables of their inventory (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Endpoint

DEPOT = "/var/lib/virtuoso"

_FIELDS = ("name", "address", "port", "site", "depot")


class StoreHost(t.TypedDict, total=False):
    """A host as the module ``registration`` takes it.

    :ivar address: ``ansible_host``, which may be another one than that by which hosts of the grid reach it.
    :ivar facts: of a home, the ``connection`` by which Ansible reaches it.
    """

    name: str
    kind: str
    site: str
    address: str
    port: int
    user: str
    identity_file: str
    ssh_args: str
    facts: dict[str, str]


def endpoints(hosts: t.Iterable[t.Mapping[str, object]], fields: t.Sequence[str] = _FIELDS) -> dict[str, Endpoint]:
    """The endpoint of each host, by its name.

    :param hosts: the hosts' variables. A host that is not in the play has those of the inventory only, none that roles
        set.
    :param fields: what is returned of each.
    """
    found = {}
    for variables in hosts:
        name = str(variables["inventory_hostname"])
        endpoint: dict[str, object] = {
            "name": name,
            "address": str(variables.get("virtuoso_address") or variables.get("ansible_host") or name),
            "port": int(str(variables.get("ansible_port") or 22)),
            "site": str(variables.get("virtuoso_site") or name),
            "depot": str(variables.get("virtuoso_depot") or DEPOT),
        }
        found[name] = t.cast(Endpoint, {field: endpoint[field] for field in fields})
    return found


def store_hosts(hosts: t.Iterable[t.Mapping[str, object]], kind: str) -> list[StoreHost]:
    """Hosts as the module ``registration`` takes them: how Ansible reaches them, for whoever reads the store.

    :param hosts: the hosts' variables.
    :param kind: ``provider`` or ``home``.
    """
    return [_store_host(variables, kind) for variables in hosts]


def _store_host(variables: t.Mapping[str, object], kind: str) -> StoreHost:
    def text(name: str) -> str:
        return str(variables.get(name) or "")

    name = text("inventory_hostname")
    host: StoreHost = {
        "name": name,
        "kind": kind,
        "site": text("virtuoso_site") or name,
        "address": text("ansible_host") or name,
        "port": int(text("ansible_port") or 22),
        "user": text("ansible_user"),
        "identity_file": text("ansible_ssh_private_key_file"),
        "ssh_args": text("ansible_ssh_common_args"),
    }
    if kind == "home":
        # Machines on its networks are reached through it, which not every connection allows.
        host["facts"] = {"connection": text("ansible_connection") or "ssh"}
    return host
