# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes the paths between hosts: UDP both ways, SSH servers, packet sizes, round trips; and the kernel's transports.

All hosts probe each other at the same time. Each datagram comes from a new port, as with VXLAN, so a firewall's state
for earlier datagrams doesn't let it pass. A host answers each datagram in the same way, and says from whom it has
heard.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._addresses import resolve
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.speaker import foreign
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.records import Path, Probe

PORT = 4788
"""Next to VXLAN's own port, which the kernel may use already. Firewalls must treat both alike."""
SIZES = (8972, 1472, 1422, 1372, 1252)
"""Bytes of UDP in frames of 9000, 1500, 1450, 1400 and 1280 bytes of IPv4."""
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_EVERY = 0.25
_TRIES = 6
"""Rounds in which larger sizes are tried with a host that answers. With 32 hosts, trying all sizes in every round would
overload them."""


class Peer(t.TypedDict):
    """Another host; ``port`` is that of its SSH server."""

    name: str
    address: str
    port: int


def _lacks(transport: str, words: t.Sequence[str]) -> str | None:
    """Why the kernel can't make such an interface, or ``None``."""
    name = "vp" + secrets.token_hex(4)
    try:
        done = subprocess.run(
            ["ip", "link", "add", name, "type", transport, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            return f"the kernel has none ({said[-1] if said else 'ip failed'})"
        subprocess.run(["ip", "link", "delete", name], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as exc:
        return f"ip: {exc}"
    return None


def kernel(find: t.Callable[[str], str | None] = shutil.which) -> t.Dict[str, str | None]:
    """For each transport ``None``, or why this host can't use it. It is tried, because kernel modules load on demand.

    :param find: finds a program's path.
    """
    lacks = _lacks("wireguard", [])
    if lacks and find("wireguard-go") and os.path.exists("/dev/net/tun"):
        lacks = None
    elif lacks:
        lacks += ", and wireguard-go isn't installed"
    if lacks is None and not find("wg"):
        lacks = "wireguard-tools isn't installed"
    return {"vxlan": _lacks("vxlan", ["id", "16777215", "dstport", "0"]), "wireguard": lacks, "evpn": foreign()}


def own_addresses() -> t.List[str]:
    """The IPv4 addresses of this host."""
    done = subprocess.run(
        ["ip", "-json", "-4", "address", "show"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return [
        info["local"]
        for entry in json.loads(done.stdout or "[]")
        for info in entry.get("addr_info", ())
        if info.get("local")
    ]


def ssh_greets(host: str, port: int, timeout: float = 3.0) -> t.Tuple[float | None, str | None]:
    """Connect to an SSH server; the seconds that it took, or why it failed."""
    begin = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=timeout) as link:
            seconds = time.monotonic() - begin
            link.settimeout(timeout)
            greeting = link.recv(4)
    except OSError as exc:
        return None, str(exc) or type(exc).__name__
    return (seconds, None) if greeting == b"SSH-" else (None, "it is no SSH server")


class Prober:
    """Probes other hosts by UDP, and answers their probes.

    :param name: how the others name this host.
    """

    def __init__(self, name: str, peers: t.Sequence[Peer], port: int = PORT) -> None:
        self.name = name
        self.port = port
        self.address = {peer["name"]: peer["address"] for peer in peers}
        self.heard: t.Dict[str, int] = {}
        self.hears_me: t.Set[str] = set()
        self.rtt: t.Dict[str, float] = {}
        self.largest: t.Dict[str, int] = {}
        self.rounds: t.Dict[str, int] = {}

    def _send(self, peer: str, word: t.Mapping[str, object], size: int = 0) -> None:
        body = json.dumps({"from": self.name, "heard": sorted(self.heard), **word}).encode()
        # A new socket each time, so that the port differs.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            try:
                out.sendto(body.ljust(size, b" "), (self.address[peer], self.port))
            except OSError:
                # Too large for the interface, or nobody there: there will be no answer.
                return

    def sizes(self, peer: str) -> t.List[int]:
        """The sizes to probe in the next round: 0 for a plain probe, and for some rounds all sizes above the largest
        that was answered."""
        self.rounds[peer] = self.rounds.get(peer, 0) + (peer in self.rtt)
        larger = [size for size in SIZES if size > self.largest.get(peer, 0)]
        return [0, *(larger if self.rounds[peer] <= _TRIES else ())]

    def _hear(self, data: bytes, now: float) -> None:
        try:
            word = json.loads(data)
            peer = word["from"]
        except (ValueError, KeyError, TypeError):
            return
        if peer not in self.address:
            return
        self.heard[peer] = self.heard.get(peer, 0) + 1
        if self.name in (word.get("heard") or ()):
            self.hears_me.add(peer)
        if "ask" in word:
            self._send(peer, {"answer": word["ask"], "size": len(data)})
        elif isinstance(word.get("answer"), (int, float)):
            seconds = now - word["answer"]
            if 0 <= seconds < 60:
                self.rtt[peer] = min(seconds, self.rtt.get(peer, 60.0))
            self.largest[peer] = max(int(word.get("size") or 0), self.largest.get(peer, 0))

    def run(self, seconds: float, least: float = 1.5) -> None:
        """Probe until all hosts have heard each other, and ``least`` seconds longer; at most ``seconds``."""
        begin = time.monotonic()
        next_round, quiet_since = begin, None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inbox:
            inbox.bind(("", self.port))
            while True:
                now = time.monotonic()
                complete = all(peer in self.rtt and peer in self.hears_me for peer in self.address)
                quiet_since = (quiet_since or now) if complete else None
                if now - begin > seconds or (quiet_since and now - quiet_since > least):
                    return
                if now >= next_round:
                    next_round = now + _EVERY
                    for peer in self.address:
                        for size in self.sizes(peer):
                            self._send(peer, {"ask": time.monotonic()}, size)
                ready, dummy, dummy_too = select.select([inbox], [], [], max(0.0, next_round - time.monotonic()))
                while ready:
                    self._hear(inbox.recv(65535), time.monotonic())
                    ready, dummy, dummy_too = select.select([inbox], [], [], 0)

    def result(self, peer: str) -> Path:
        """What was found about the path to a host, by UDP."""
        return {
            "udp_in": peer in self.heard,
            "udp_out": peer in self.hears_me,
            "udp_rtt": self.rtt.get(peer),
            # 20 bytes of IPv4 and 8 of UDP
            "path_mtu": self.largest[peer] + 28 if self.largest.get(peer, 0) >= SIZES[-1] else None,
        }


def probe(name: str, peers: t.Sequence[Peer], *, seconds: float = 8.0, port: int = PORT) -> Probe:
    """Probe all other hosts; everything but ``host_key``. :raises OSError: where the UDP port can't be used."""
    # Resolved once, and here: devices and rules need addresses, and this host may have another DNS than the controller.
    peers = [{**peer, "address": next(iter(resolve(peer["address"])), peer["address"])} for peer in peers]
    prober = Prober(name, peers, port)
    prober.run(seconds)
    paths: t.Dict[str, Path] = {}
    for peer in peers:
        connected, trouble = ssh_greets(peer["address"], int(peer.get("port") or 22))
        found = prober.result(peer["name"])
        paths[peer["name"]] = {
            **found,
            "address": peer["address"],
            "ssh": connected is not None,
            "ssh_trouble": trouble,
            "rtt": found["udp_rtt"] or connected,
        }
    return {"name": name, "kernel": kernel(), "addresses": own_addresses(), "paths": paths}
