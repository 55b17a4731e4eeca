# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's WAN does to a frame: whom it is for, what firewalls on its way say, and when it arrives (pure: time is
given)."""

from __future__ import annotations

import heapq
import struct
from dataclasses import dataclass, field

ARP, IPV4 = 0x0806, 0x0800
ICMP, TCP, UDP = 1, 6, 17
ERRORS = (3, 11, 12)
"""ICMP messages about another packet (RFC 792): a stateful firewall lets them in."""

REMEMBERED = {TCP: 3600.0, UDP: 60.0, ICMP: 30.0}
"""Seconds that a firewall remembers a silent flow."""

OVERHEAD = 24
"""Bytes of Ethernet on the wire beside a frame: preamble, check sum, gap."""

Flow = tuple[int, bytes, bytes, bytes]


@dataclass(frozen=True)
class Packet:
    """What firewalls look at in a frame of IPv4. Of a fragment after the first there are no ports, and ``ports`` is
    ``None``."""

    protocol: int
    source: bytes
    target: bytes
    ports: tuple[bytes, bytes] | None
    error: bool = False

    @property
    def flow(self) -> Flow:
        """The flow, as its sender sees it."""
        return (self.protocol, self.source, self.target, b"".join(self.ports or ()))

    @property
    def answers(self) -> Flow:
        """The flow that it is an answer to, as the other end sees it."""
        return (self.protocol, self.target, self.source, b"".join(reversed(self.ports or ())))


def parse(frame: bytes) -> Packet | None:
    """The packet in a frame, where it is one of IPv4."""
    if len(frame) < 34 or frame[12:14] != b"\x08\x00":
        return None
    start = 14 + (frame[14] & 0xF) * 4
    protocol, source, target = frame[23], frame[26:30], frame[30:34]
    first = not struct.unpack_from("!H", frame, 20)[0] & 0x1FFF
    ports, error = None, False
    if protocol == ICMP and first and len(frame) >= start + 6:
        error = frame[start] in ERRORS
        # An echo and its answer have the same identifier.
        ports = (frame[start + 4 : start + 6], frame[start + 4 : start + 6])
    elif first and len(frame) >= start + 4:
        ports = (frame[start : start + 2], frame[start + 2 : start + 4])
    return Packet(protocol, source, target, ports, error)


class Firewall:
    """What stands before a host: ``open``, ``closed`` (nothing comes in but answers), ``no_udp`` (neither way)."""

    def __init__(self, kind: str = "open") -> None:
        self.kind = kind
        self._flows: dict[Flow, float] = {}
        self._pairs: dict[tuple[bytes, bytes], float] = {}

    def out(self, packet: Packet, now: float) -> bool:
        """Whether the host's own packet goes out."""
        if self.kind == "closed" and packet.ports is not None:
            self._flows[packet.flow] = now
            self._pairs[packet.source, packet.target] = now
            if len(self._flows) > 4096:
                self._forget(now)
        return self.kind != "no_udp" or packet.protocol != UDP

    def into(self, packet: Packet, now: float) -> bool:
        """Whether a packet gets in to the host."""
        if self.kind != "closed":
            return self.kind != "no_udp" or packet.protocol != UDP
        if packet.error:
            return True
        known = self._flows if packet.ports is not None else self._pairs
        key = packet.answers if packet.ports is not None else (packet.target, packet.source)
        seen = known.get(key)
        if seen is None or now - seen > REMEMBERED.get(packet.protocol, 60.0):
            return False
        known[key] = now
        return True

    def _forget(self, now: float) -> None:
        self._flows = {flow: seen for flow, seen in self._flows.items() if now - seen < REMEMBERED.get(flow[0], 60.0)}


@dataclass
class Port:
    """A host's line to the WAN. ``sends`` and ``receives`` are the times at which the line is free again, each way."""

    mac: bytes
    firewall: Firewall = field(default_factory=Firewall)
    sends: float = 0.0
    receives: float = 0.0


class Wan:
    """The lines of all hosts, and the frames that are under way between them."""

    def __init__(self, ports: dict[str, Port], *, rate: float, delay: float, queue: float = 0.05) -> None:
        """
        :param rate: bits a second of each line, each way; 0 is no limit.
        :param delay: seconds from line to line, one way.
        :param queue: seconds of traffic that wait before a line; more is dropped.
        """
        self.ports = ports
        self.rate, self.delay, self.queue = rate, delay, queue
        self.delays: dict[frozenset[str], float] = {}
        self.cuts: dict[frozenset[str], float] = {}
        self._by_mac = {port.mac: name for name, port in ports.items()}
        self._under_way: list[tuple[float, int, bool, str, bytes]] = []
        self._count = 0

    def take(self, source: str, frame: bytes, now: float) -> None:
        """A frame that a host sends."""
        port = self.ports[source]
        kind = frame[12:14]
        packet = parse(frame) if kind == b"\x08\x00" else None
        if packet is None and kind != b"\x08\x06":
            return
        target = self._by_mac.get(frame[:6])
        if target is None and not (frame[0] & 1 and packet is None):
            return
        if packet is not None and not port.firewall.out(packet, now):
            return
        gone = self._through(port.sends, frame, now)
        if gone is None:
            return
        port.sends = gone
        for name in [target] if target else [name for name in self.ports if name != source]:
            pair = frozenset((source, name))
            until = self.cuts.get(pair, 0.0)
            if until <= now:
                self._push(gone + self.delays.get(pair, self.delay), False, name, frame)

    def _through(self, free: float, frame: bytes, now: float) -> float | None:
        """When a frame has passed a line that is free at a time; ``None`` where too many wait before it."""
        if not self.rate:
            return now
        if free - now > self.queue:
            return None
        return max(free, now) + (len(frame) + OVERHEAD) * 8 / self.rate

    def _push(self, when: float, arrived: bool, name: str, frame: bytes) -> None:
        # The number keeps frames of one time in their order.
        self._count += 1
        heapq.heappush(self._under_way, (when, self._count, arrived, name, frame))

    def next_time(self) -> float | None:
        """When :meth:`due` has something to do."""
        return self._under_way[0][0] if self._under_way else None

    def due(self, now: float) -> list[tuple[str, bytes]]:
        """Frames that have come to their hosts by now."""
        done = []
        while self._under_way and self._under_way[0][0] <= now:
            when, dummy, arrived, name, frame = heapq.heappop(self._under_way)
            if arrived:
                done.append((name, frame))
                continue
            port = self.ports[name]
            packet = parse(frame)
            if packet is not None and not port.firewall.into(packet, now):
                continue
            passed = self._through(port.receives, frame, when)
            if passed is None:
                continue
            port.receives = passed
            self._push(passed, True, name, frame)
        return done
