# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IP addresses of other hosts, as this one resolves their names."""

from __future__ import annotations

import ipaddress
import socket
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten


def resolve(address: str) -> list[str]:
    """The IP addresses of a name or address, IPv4 first, each once; none where nothing here knows it."""
    try:
        entries = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    found = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in entries)
    return sorted(found, key=lambda text: ":" in text)


def reachable(
    found: t.Mapping[str, t.Sequence[str]], hosts: t.Mapping[str, str], own: str, required: bool = True
) -> dict[str, list[str]]:
    """The addresses of hosts without those that only a host itself can use (pure).

    :param found: the addresses of each host, as this one has resolved them.
    :param hosts: the name or address of each host, as the inventory has it.
    :param own: the name of this host; nobody needs an address of himself.
    :param required: whether each other host has to have one.
    :raises GridError: ``address_unknown`` where one has none that has to.
    """
    usable = {
        name: [text for text in addresses if not ipaddress.ip_address(text).is_loopback]
        for name, addresses in found.items()
    }
    lost = sorted(name for name, addresses in usable.items() if not addresses and name != own)
    if lost and required:
        what = ", ".join(
            f"{shorten(hosts[name])} ({name}) " + ("is this host itself" if found[name] else "is not known")
            for name in lost
        )
        raise GridError(
            "address_unknown",
            f"hosts of the grid have no address here: {what}",
            tried="resolve their names",
            remedy="Give them names that all hosts resolve, by the DNS or /etc/hosts, or addresses: set"
            " virtuoso_address of these hosts in the inventory, and run virtuoso.grid.setup for them again",
            hosts=lost,
        )
    return usable
