# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Latency to other hosts: the time of a TCP handshake with an open port.

A handshake is one round trip and, unlike ICMP, needs no privilege.
"""

from __future__ import annotations

import concurrent.futures
import socket
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Latency

TRIES = 3
TIMEOUT = 3.0


def round_trip(address: str, port: int, timeout: float = TIMEOUT, tries: int = TRIES) -> float | None:
    """Seconds of the shortest of several handshakes, without the look-up of the name; ``None`` if all failed."""
    times = []
    try:
        family, kind, protocol, dummy, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        return None
    for dummy_try in range(tries):
        with socket.socket(family, kind, protocol) as connection:
            connection.settimeout(timeout)
            begin = time.perf_counter()
            try:
                connection.connect(target)
            except OSError:
                break
            times.append(time.perf_counter() - begin)
    return min(times, default=None)


class Peer(t.TypedDict):
    """A host at another site."""

    site: str
    address: str
    port: t.Optional[int]


def latencies(peers: t.Sequence[Peer]) -> list[Latency]:
    """The latency to each site of which a peer answered, by its nearest peer; sorted by site. Port 22 by default."""
    if not peers:
        return []
    with concurrent.futures.ThreadPoolExecutor(min(32, len(peers))) as pool:
        times = list(pool.map(lambda peer: round_trip(str(peer["address"]), int(peer.get("port") or 22)), peers))
    nearest: dict[str, float] = {}
    for peer, seconds in zip(peers, times):
        if seconds is not None:
            nearest[peer["site"]] = min(seconds, nearest.get(peer["site"], seconds))
    return [{"site": site, "seconds": round(seconds, 6)} for site, seconds in sorted(nearest.items())]
