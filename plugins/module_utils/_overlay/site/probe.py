# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gets through between hosts: UDP both ways, TCP either way, how large and how fast; and what the kernel here can
do.

All hosts probe each other at the same time. Each sends to the others' port from a port of its own each time, as VXLAN
does, so that only what a firewall admits unasked counts; each answers what it hears in the same way, with what it has
heard itself.
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

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.speaker import foreign

PORT = 4788
"""Beside VXLAN's own, which the kernel may have taken already; firewalls must treat the two alike."""
SIZES = (8972, 1472, 1422, 1372, 1252)
"""Bytes of UDP in frames of 9000, 1500, 1450, 1400 and 1280 bytes of IPv4."""
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_EVERY = 0.25
_TRIES = 6
"""Rounds in which a host that answers is asked for larger frames than it has answered: 32 hosts that always asked for
all sizes would drown each other."""

Peer = t.Dict[str, t.Any]


def _lacks(transport: str, words: t.Sequence[str]) -> str | None:
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


def kernel(find: t.Callable[[str], t.Any] = shutil.which) -> t.Dict[str, str | None]:
    """For each transport ``None``, or why it can't be had here: tried, not looked up, because modules load on demand."""
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
    """Seconds that a connection took to an SSH server that greets, or why there was none."""
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
    """One host's part in probing the others by UDP."""

    def __init__(self, name: str, peers: t.Sequence[Peer], port: int = PORT) -> None:
        self.name = name
        self.port = port
        self.address = {peer["name"]: peer["address"] for peer in peers}
        self.heard: t.Dict[str, int] = {}
        self.hears_me: t.Set[str] = set()
        self.rtt: t.Dict[str, float] = {}
        self.largest: t.Dict[str, int] = {}
        self.rounds: t.Dict[str, int] = {}

    def _send(self, peer: str, word: t.Dict[str, t.Any], size: int = 0) -> None:
        body = json.dumps({"from": self.name, "heard": sorted(self.heard), **word}).encode()
        # A socket for each: the next one comes from another port.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            try:
                out.sendto(body.ljust(size, b" "), (self.address[peer], self.port))
            except OSError:
                # Larger than the interface takes, or nobody there: then it isn't heard.
                return

    def sizes(self, peer: str) -> t.List[int]:
        """What to ask a host for in the next round: an answer, and all sizes that are larger than what it answered,
        some rounds long."""
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
        """Probe until all have heard each other and some more, or for so many seconds."""
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

    def result(self, peer: str) -> t.Dict[str, t.Any]:
        """What was found of one."""
        return {
            "udp_in": peer in self.heard,
            "udp_out": peer in self.hears_me,
            "udp_rtt": self.rtt.get(peer),
            # 20 bytes of IPv4 and 8 of UDP
            "path_mtu": self.largest[peer] + 28 if self.largest.get(peer, 0) >= SIZES[-1] else None,
        }


def probe(name: str, peers: t.Sequence[Peer], *, seconds: float = 8.0, port: int = PORT) -> t.Dict[str, t.Any]:
    """All of it. :param peers: the other hosts, each ``name``, ``address`` and ``port`` of its SSH server."""
    prober = Prober(name, peers, port)
    prober.run(seconds)
    paths = {}
    for peer in peers:
        connected, trouble = ssh_greets(peer["address"], int(peer.get("port") or 22))
        found = prober.result(peer["name"])
        paths[peer["name"]] = {
            **found,
            "ssh": connected is not None,
            "ssh_trouble": trouble,
            "rtt": found["udp_rtt"] or connected,
        }
    return {"name": name, "kernel": kernel(), "addresses": own_addresses(), "paths": paths}
