# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of the inventory, made from rows of the store: groups, variables, and how hosts are reached (pure)."""

from __future__ import annotations

import os
import re
import shlex
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import HostRow, MachineRow
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import reference

Variables = t.Dict[str, object]
"""Host variables of Ansible, by name."""


class Entry(t.TypedDict):
    """One host of the inventory."""

    name: str
    groups: list[str]
    variables: Variables
    connection: Variables  # how it is reached; another inventory may know better


def group_name(kind: str, value: str) -> str:
    """A valid name of a group, such as ``site_north``. Characters that Ansible doesn't allow become underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{kind}_{value}")


def ssh_option(name: str, value: str) -> str:
    """``-o NAME=VALUE`` for a shell; ``value`` must not contain line breaks."""
    return f"-o {shlex.quote(f'{name}={value}')}"


def _quoted(path: str) -> str:
    """A path as one argument in the configuration of ssh."""
    escaped = os.path.expanduser(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def jump(way: HostRow, *, target: str) -> str:
    """The ProxyCommand (ssh_config(5)) by which ssh reaches a machine through another host.

    ssh hands it to a shell and replaces %h and %p in it.

    :param way: the host to go through: the machine's provider, or the home of its network.
    :param target: the machine's address.
    """
    argv = ["ssh"]
    if way["port"]:
        argv += ["-p", str(way["port"])]
    if way["identity_file"]:
        # As Ansible passes it, so that ssh replaces tokens such as %h in it. It doesn't with -i.
        argv += ["-o", f"IdentityFile={_quoted(way['identity_file'])}"]
    if way["login"]:
        argv += ["-l", way["login"]]
    argv += [*shlex.split(way["ssh_args"] or ""), "-o", "BatchMode=yes"]
    quoted = shlex.join(argv).replace("%", "%%")
    to = "[%h]:%p" if ":" in target else "%h:%p"
    return f"{quoted} -W {shlex.quote(to)} -- {shlex.quote(way['address'] or way['name']).replace('%', '%%')}"


def login_of(row: MachineRow) -> str | None:
    """The user to log in as: the first one of the order who has a key, else the image's own user.

    An image whose own user is root creates no other users: all keys are root's.
    """
    own, spec = (row["facts"] or {}).get("user"), row["spec"]
    users = (spec.get("users") or []) if spec and own != "root" else []
    return next((user["name"] for user in users if user.get("ssh_authorized_keys")), own)


def _is_local(host: HostRow) -> bool:
    """Whether the controller is this host."""
    return (host["facts"] or {}).get("connection") == "local"


def way_to(row: MachineRow, hosts: t.Mapping[str, HostRow]) -> HostRow | None:
    """The host that a machine is reached through, ``None`` if the controller reaches it directly.

    It is the home of the machine's network, because a provider is not on the networks of its machines. Without a home
    it is the provider. A controller that is that home or provider itself needs nobody.

    :param hosts: providers and homes by name.
    """
    home = hosts.get(row.get("network_home") or "")
    if home is not None:
        return None if _is_local(home) else home
    provider = hosts.get(row["provider"] or "")
    return None if provider is not None and _is_local(provider) else provider


def _machine_connection(row: MachineRow, way: HostRow | None, known_hosts: str) -> Variables:
    """How Ansible reaches a machine that has an address. Its host key is kept under its uuid."""
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
        # A group of all hosts may set another port, for the providers.
        "ansible_port": 22,
        "ansible_user": login_of(row),
        "ansible_python_interpreter": (row["facts"] or {}).get("python"),
        "ansible_ssh_common_args": " ".join(options),
        # Ansible's default path of a persistent connection is made of address, port and user. On private networks of
        # two providers these can be the same.
        "ansible_control_path": f"%(directory)s/{row['uuid'].replace('-', '')[:16]}-%%r",
    }
    return {name: value for name, value in variables.items() if value is not None}


def machine_entry(row: MachineRow, way: HostRow | None, known_hosts: str) -> Entry:
    """The entry of a machine.

    :param way: the host that it is reached through, see :func:`way_to`.
    :param known_hosts: the file of host keys.
    """
    view = views.machine_view(row)
    spec, facts = row["spec"], row["facts"] or {}
    made_from = view["image"]
    image = (made_from.get("name") if made_from else None) or (spec["image"] if spec else None)
    tags = facts.get("tags") if spec is None else spec.get("tags")
    variables = {
        "kind": "machine",
        "reference": reference(row["uuid"]),
        "image": image,
        "image_digest": made_from.get("digest") if made_from else None,
        "uuid": view["uuid"],
        "owner": view["owner"],
        "state": view["state"],
        "provider": view["provider"],
        "site": view["site"],
        "generation": view["generation"],
        "addresses": view["addresses"],
        "ordered_address": view["ordered_address"],
        "mac": view["mac"],
        "display": view["display"],
        "seen": view["seen"],
        "restart_required": view["restart_required"],
        "missing": row["missing"],
        "vcpus": row["cpus"],
        "memory": row["memory"],
        "disk": row["disk"],
        "network": spec.get("network") if spec else None,
        "goal": spec.get("goal") if spec else None,
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
    if facts.get("python") and row["address"] and not row["future"]:
        # Ansible's modules run there, and not only raw.
        groups.append("ansible_ready")
    return {
        "name": row["name"],
        "groups": groups,
        "variables": _prefixed(variables),
        "connection": _machine_connection(row, way, known_hosts),
    }


def host_entry(row: HostRow) -> Entry:
    """The entry of a provider or home. Its site is a connection variable: among the variables it would override the
    one that a group in another inventory sets."""
    variables = {"kind": row["kind"], "uuid": row["uuid"], "seen": row["seen"]}
    connection = {
        "virtuoso_site": row["site"],
        "ansible_host": row["address"],
        "ansible_port": row["port"],
        "ansible_user": row["login"],
        "ansible_ssh_private_key_file": row["identity_file"],
        "ansible_ssh_common_args": row["ssh_args"],
    }
    groups = [group_name("site", row["site"])] if row["site"] else []
    known: Variables = {name: value for name, value in connection.items() if value is not None}
    return {"name": row["name"], "groups": groups, "variables": _prefixed(variables), "connection": known}


def mark_stale(entry: Entry, before: str) -> Entry:
    """The entry with ``virtuoso_stale``, and in the group ``stale`` if it is.

    :param before: what was last seen before this time, or never, is stale.
    """
    seen = entry["variables"].get("virtuoso_seen")
    future = entry["variables"].get("virtuoso_state") in ("future", "placed")
    stale = not future and (seen is None or str(seen) < before)
    groups = [*entry["groups"], "stale"] if stale else entry["groups"]
    variables = {**entry["variables"], "virtuoso_stale": stale}
    return {"name": entry["name"], "groups": groups, "variables": variables, "connection": entry["connection"]}


def _prefixed(variables: t.Mapping[str, object]) -> Variables:
    return {f"virtuoso_{name}": value for name, value in variables.items() if value is not None}


def entries(
    machines: t.Iterable[MachineRow], hosts: t.Sequence[HostRow], *, include: t.Container[str], known_hosts: str
) -> list[Entry]:
    """The whole inventory: hosts first, then machines.

    :param include: which machines: ``existing``, ``future`` or both.
    :param known_hosts: the file of the machines' host keys.
    """
    by_name = {row["name"]: row for row in hosts}
    wanted = [row for row in machines if ("future" if row["future"] else "existing") in include]
    return [*map(host_entry, hosts), *(machine_entry(row, way_to(row, by_name), known_hosts) for row in wanted)]
