# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the store as hosts of an inventory: their groups, variables, and the way to them (pure)."""

from __future__ import annotations

import os
import re
import shlex
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import views
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import reference

Row = t.Dict[str, t.Any]


class Entry(t.TypedDict):
    """One host of the inventory; ``connection`` are variables that other inventories may tell better."""

    name: str
    groups: list[str]
    variables: Row
    connection: Row


def group_name(kind: str, value: str) -> str:
    """A valid group's name: ``site_north``; whatever Ansible doesn't allow becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{kind}_{value}")


def ssh_option(name: str, value: str) -> str:
    """``-o NAME=VALUE`` for a shell; ``value`` must not hold line breaks."""
    return f"-o {shlex.quote(f'{name}={value}')}"


def _quoted(path: str) -> str:
    """A path as one argument in ssh's configuration."""
    escaped = os.path.expanduser(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def jump(way: Row, *, target: str) -> str:
    """The command that ssh runs to reach a port of the machine through its provider, or its network's home
    (ssh_config(5), ProxyCommand).

    ssh hands it to a shell and replaces %h and %p in it.
    """
    argv = ["ssh"]
    if way["port"]:
        argv += ["-p", str(way["port"])]
    if way["identity_file"]:
        # As Ansible passes it, so % begins one of ssh's tokens here too; with -i it would not.
        argv += ["-o", f"IdentityFile={_quoted(way['identity_file'])}"]
    if way["login"]:
        argv += ["-l", way["login"]]
    argv += [*shlex.split(way["ssh_args"] or ""), "-o", "BatchMode=yes"]
    quoted = shlex.join(argv).replace("%", "%%")
    to = "[%h]:%p" if ":" in target else "%h:%p"
    return f"{quoted} -W {shlex.quote(to)} -- {shlex.quote(way['address'] or way['name']).replace('%', '%%')}"


def login_of(row: Row) -> str | None:
    """Whom to log in as: the first user of the order who has a key, else the image's own user.

    An image whose own user is root makes no other users: all keys are root's.
    """
    own = (row["facts"] or {}).get("user")
    users = [] if own == "root" else (row["spec"] or {}).get("users") or []
    return next((user["name"] for user in users if user.get("ssh_authorized_keys")), own)


def way_to(row: Row, hosts: t.Mapping[str, Row]) -> Row | None:
    """The host that a machine is reached through: the home of its network, where it has one, for a provider is on none
    of its machines' networks; else its provider. ``None`` where the controller is that home itself.
    """
    home = hosts.get(row.get("network_home") or "")
    if home is not None:
        return None if (home["facts"] or {}).get("connection") == "local" else home
    return hosts.get(row["provider"] or "")


def _machine_connection(row: Row, way: Row | None, known_hosts: str) -> Row:
    """How Ansible reaches a machine that has an address: through its home or provider, its host key known by its uuid."""
    if row["future"] or not row["address"]:
        return {}
    options = [
        ssh_option("HostKeyAlias", row["uuid"]),
        ssh_option("UserKnownHostsFile", _quoted(known_hosts).replace("%", "%%")),
        ssh_option("StrictHostKeyChecking", "accept-new"),
    ]
    if way is not None:
        options.insert(0, ssh_option("ProxyCommand", jump(way, target=row["address"])))
    variables = {
        "ansible_host": row["address"],
        # Of the machine, not what a group of all hosts may say of providers.
        "ansible_port": 22,
        "ansible_user": login_of(row),
        "ansible_python_interpreter": (row["facts"] or {}).get("python"),
        "ansible_ssh_common_args": " ".join(options),
        # Ansible's own path for a connection that stays open is made of address, port and user: those of machines on
        # two providers' private networks can be the same.
        "ansible_control_path": f"%(directory)s/{row['uuid'].replace('-', '')[:16]}-%%r",
    }
    return {name: value for name, value in variables.items() if value is not None}


def machine_entry(row: Row, way: Row | None, known_hosts: str) -> Entry:
    """A machine. ``row`` is as :func:`query.machines` returns it, ``way`` the row of ``host`` of :func:`way_to`."""
    view = views.machine_view(row)
    spec, facts = row["spec"] or {}, row["facts"] or {}
    image = (view["image"] or {}).get("name") or spec.get("image")
    tags = facts.get("tags") if row["owner"] is None else spec.get("tags")
    variables = {
        "kind": "machine",
        "reference": reference(row["uuid"]),
        "image": image,
        "image_digest": (view["image"] or {}).get("digest"),
        **{
            name: view[name]
            for name in (
                "uuid",
                "owner",
                "state",
                "provider",
                "site",
                "generation",
                "addresses",
                "mac",
                "display",
                "seen",
                "restart_required",
            )
        },
        "missing": row["missing"],
        "vcpus": row["cpus"],
        "memory": row["memory"],
        "disk": row["disk"],
        **{name: spec.get(name) for name in ("network", "goal")},
        "tags": tags or [],
    }
    groups = ["machines", group_name("state", view["state"])]
    named = (
        ("site", row["site"]),
        ("owner", row["owner"]),
        ("image", None if image is None or image.startswith("sha256:") else image.split("@")[0]),
    )
    groups += [group_name(kind, value) for kind, value in named if value]
    groups += [group_name("tag", tag) for tag in tags or []]
    return {
        "name": row["name"],
        "groups": groups,
        "variables": _prefixed(variables),
        "connection": _machine_connection(row, way, known_hosts),
    }


def host_entry(row: Row) -> Entry:
    """A provider or home. Its site is set by whoever names it: a value from the store would win over one of a group
    there."""
    variables = {name: row[name] for name in ("kind", "uuid", "seen")}
    connection = {
        "virtuoso_site": row["site"],
        "ansible_host": row["address"],
        "ansible_port": row["port"],
        "ansible_user": row["login"],
        "ansible_ssh_private_key_file": row["identity_file"],
        "ansible_ssh_common_args": row["ssh_args"],
    }
    groups = [group_name("site", row["site"])] if row["site"] else []
    known = {name: value for name, value in connection.items() if value is not None}
    return {"name": row["name"], "groups": groups, "variables": _prefixed(variables), "connection": known}


def mark_stale(entry: Entry, before: str) -> Entry:
    """The entry with ``virtuoso_stale``, and in the group ``stale`` if it was last seen before then, or never. Nothing
    is left out for it."""
    seen = entry["variables"].get("virtuoso_seen")
    stale = entry["variables"].get("virtuoso_state") not in ("future", "placed") and (seen is None or seen < before)
    groups = [*entry["groups"], "stale"] if stale else entry["groups"]
    return {**entry, "groups": groups, "variables": {**entry["variables"], "virtuoso_stale": stale}}


def _prefixed(variables: Row) -> Row:
    return {f"virtuoso_{name}": value for name, value in variables.items() if value is not None}


def entries(
    machines: t.Iterable[Row], hosts: t.Sequence[Row], *, include: t.Container[str], known_hosts: str
) -> list[Entry]:
    """The inventory: hosts first, then machines; ``include`` has ``existing``, ``future`` or both."""
    by_name = {row["name"]: row for row in hosts}
    wanted = [row for row in machines if ("future" if row["future"] else "existing") in include]
    return [*map(host_entry, hosts), *(machine_entry(row, way_to(row, by_name), known_hosts) for row in wanted)]
