# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the controller reaches the hosts of the grid, and how they reach each other (pure)."""

from __future__ import annotations

import os
import re
import shlex
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Endpoint

DEPOT = "/var/lib/virtuoso"

LOCAL = ("local", "ansible.builtin.local")
SSH = ("ssh", "smart", "ansible.builtin.ssh")

_FILES = ("-F", "-i")
"""Options of ssh(1) that name a file. Relative to the directory in which Ansible runs, and nobody else has to."""
_FILE_SETTINGS = ("identityfile", "certificatefile", "userknownhostsfile", "globalknownhostsfile")
_WITH_VALUE = frozenset("BbcDEeFIiJLlmOoPpQRSWw")
_OWN_SETTINGS = ("controlmaster", "controlpath", "controlpersist")
"""They are about Ansible's own connections to the host. A jump would leave one behind, or take another's."""


class Way(t.TypedDict):
    """How a host is reached.

    :ivar connection: ``ssh``, ``local`` or the name of another connection plugin.
    :ivar host: what the controller's ssh is given, a name or an address; ``port``, ``user``, ``identity_file`` and
        ``ssh_args`` go with it, and are 0 or empty where ssh finds them in its own configuration.
    :ivar password: whether it logs in with a password, so that nobody but Ansible itself gets there.
    :ivar address: by which other hosts of the grid reach it, with ``ssh_port``.
    :ivar depot: where it keeps its images.
    """

    name: str
    connection: str
    host: str
    port: int
    user: str
    identity_file: str
    ssh_args: str
    password: bool
    address: str
    ssh_port: int
    site: str
    depot: str


class StoreHost(t.TypedDict, total=False):
    """A host as the module ``registration`` takes it.

    :ivar address: what the controller's ssh is given.
    :ivar facts: the ``connection`` by which the controller reaches it.
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


def portable(arguments: str, directory: str) -> str:
    """Arguments of ssh as they can be used elsewhere: files are absolute, nothing is shared with Ansible's connections.

    :param directory: that in which they were relative.
    :raises ValueError: quotes that aren't closed.
    """
    kept: list[str] = []
    words = iter(shlex.split(arguments))
    for word in words:
        if len(word) > 1 and word[0] == "-" and word[1] in _WITH_VALUE:
            option, value = word[:2], word[2:] or next(words, "")
            if option == "-S" or (option == "-o" and _setting(value)[0].lower() in _OWN_SETTINGS):
                continue
            kept += [option, _absolute(option, value, directory)]
        else:
            kept.append(word)
    return shlex.join(kept)


def _setting(text: str) -> tuple[str, str]:
    """The name and the value of a setting: ``Name=value`` or ``Name value``, as ssh_config(5) has them."""
    name, *value = re.split(r"\s*=\s*|\s+", text.strip(), maxsplit=1)
    return name, "".join(value)


def _absolute(option: str, value: str, directory: str) -> str:
    def path(text: str) -> str:
        bare = text.strip('"')
        if not bare or bare == "none" or bare[0] in "/~%$":
            return text
        return f'"{os.path.join(directory, bare)}"' if option == "-o" else os.path.join(directory, bare)

    if option in _FILES:
        return path(value)
    name, setting = _setting(value)
    return f"{name}={path(setting)}" if option == "-o" and name.lower() in _FILE_SETTINGS else value


def resolved(said: str) -> tuple[str, int]:
    """The host name and port that ssh has found, of what ``ssh -G`` says; ``("", 0)`` where it says nothing."""
    settings = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    port = settings.get("port", "")
    return settings.get("hostname", ""), int(port) if port.isascii() and port.isdecimal() else 0


def arguments_of(options: t.Mapping[str, object]) -> str:
    """All arguments for ssh among the options of Ansible's connection plugin, in its order."""
    parts = [str(options.get(name) or "") for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")]
    if options.get("host_key_checking") is False:
        parts.insert(1, "-o StrictHostKeyChecking=no")
    return " ".join(part.strip() for part in parts if part.strip())


def way_of(
    variables: t.Mapping[str, object],
    connection: str,
    options: t.Mapping[str, object],
    found: tuple[str, int],
    directory: str,
) -> Way:
    """How a host is reached.

    :param variables: the host's, of the inventory.
    :param connection: the name of its connection plugin.
    :param options: of Ansible's connection plugin ``ssh`` for it.
    :param found: what :func:`resolved` found.
    :param directory: the one in which Ansible runs.
    """
    name = str(variables["inventory_hostname"])
    host = str(options.get("host") or variables.get("ansible_host") or name)
    port = int(str(options.get("port") or 0))
    return {
        "name": name,
        "connection": "local" if connection in LOCAL else "ssh" if connection in SSH else connection,
        "host": host,
        "port": port,
        "user": str(options.get("remote_user") or ""),
        "identity_file": _absolute("-i", str(options.get("private_key_file") or ""), directory),
        "ssh_args": portable(arguments_of(options), directory),
        "password": bool(options.get("password")),
        "address": str(variables.get("virtuoso_address") or found[0] or host),
        "ssh_port": port or found[1] or 22,
        "site": str(variables.get("virtuoso_site") or name),
        "depot": str(variables.get("virtuoso_depot") or DEPOT),
    }


def store_host(way: Way, kind: str) -> StoreHost:
    """A host as the module ``registration`` takes it, for whoever reads the store.

    :param kind: ``provider`` or ``home``.
    """
    host: StoreHost = {
        "name": way["name"],
        "kind": kind,
        "site": way["site"],
        "address": way["host"],
        "port": way["port"],
        "user": way["user"],
        "identity_file": way["identity_file"],
        "ssh_args": way["ssh_args"],
    }
    if kind == "home":
        # A provider's facts come with a look at it.
        host["facts"] = {"connection": way["connection"]}
    return host


def store_hosts(ways: t.Iterable[Way], kind: str) -> list[StoreHost]:
    """Hosts as the module ``registration`` takes them. :param kind: ``provider`` or ``home``."""
    return [store_host(way, kind) for way in ways]


_FIELDS = ("name", "address", "port", "site", "depot")


def endpoints(ways: t.Iterable[Way], fields: t.Sequence[str] = _FIELDS) -> dict[str, Endpoint]:
    """How other hosts of the grid reach each host, by its name.

    :param fields: what is returned of each.
    """
    found = {}
    for way in ways:
        endpoint: dict[str, object] = {**way, "port": way["ssh_port"]}
        found[way["name"]] = t.cast(Endpoint, {field: endpoint[field] for field in fields})
    return found
