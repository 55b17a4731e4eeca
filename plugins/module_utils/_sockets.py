# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TCP ports of this host are listened on, and how many clients each has, read from /proc/net/tcp."""

from __future__ import annotations

import contextlib
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

_FILES = ("/proc/net/tcp", "/proc/net/tcp6")
_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})", re.ASCII)
_LISTENS, _ESTABLISHED = "0A", "01"


class Socket(t.NamedTuple):
    """A TCP port: whether a program listens on it, and how many connections it has."""

    listens: bool
    clients: int


def parse_sockets(*tables: str) -> dict[int, Socket]:
    """TCP ports by number, from the texts of ``/proc/net/tcp`` and ``tcp6`` (pure).

    Format: proc_net_tcp in the kernel's documentation.
    """
    listening: set[int] = set()
    clients: dict[int, int] = {}
    for line in (line.split() for table in tables for line in table.splitlines()[1:]):
        if len(line) < 4:
            continue
        port = int(line[1].rpartition(":")[2], 16)
        if line[3] == _LISTENS:
            listening.add(port)
        elif line[3] == _ESTABLISHED:
            clients[port] = clients.get(port, 0) + 1
    return {port: Socket(port in listening, clients.get(port, 0)) for port in {*listening, *clients}}


def tcp_ports() -> dict[int, Socket]:
    """TCP ports of this host by number, as they are now."""
    texts = []
    for table in _FILES:
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as file:
            texts.append(file.read())
    return parse_sockets(*texts)


def parse_ports(text: str) -> range:
    """Read a range of ports such as ``10809-10872``, both included. :raises GridError: ``invalid_ports``."""
    found = _PORTS.fullmatch(text)
    ports = range(int(found[1]), int(found[2]) + 1) if found else range(0)
    if not ports or ports[0] < 1024 or ports[-1] > 65535:
        raise GridError(
            "invalid_ports", f"{shorten(text)} is not a range of ports", remedy="Give a range such as 10809-10872"
        )
    return ports
