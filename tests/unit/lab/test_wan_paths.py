# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's emulated WAN, of which the overlay's tests believe what they see: firewalls, delay, rate, cuts."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).resolve().parents[2] / "lab" / "wan_paths.py"
_SPEC = importlib.util.spec_from_file_location("wan_paths", _PATH)
paths = importlib.util.module_from_spec(_SPEC)
sys.modules["wan_paths"] = paths
_SPEC.loader.exec_module(paths)

HOSTS = {"home": 1, "one": 2, "two": 3}


def frame(source, target, protocol=17, ports=(1000, 2000), size=100, offset=0):
    """A frame of IPv4 between hosts; of ICMP, ``ports`` are type and identifier."""
    rest = struct.pack("!BBHH", ports[0], 0, 0, ports[1]) if protocol == 1 else struct.pack("!HH", *ports)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        size - 14,
        0,
        offset,
        64,
        protocol,
        0,
        bytes([10, 0, 0, HOSTS[source]]),
        bytes([10, 0, 0, HOSTS[target]]),
    )
    return (mac(target) + mac(source) + b"\x08\x00" + head + rest).ljust(size, b"\0")


def mac(name):
    """A host's address."""
    return bytes([2, 0, 0, 0, 0, HOSTS[name]])


@pytest.fixture(name="wan")
def _wan():
    kinds = {"home": "closed", "one": "open", "two": "no_udp"}
    return paths.Wan(
        {name: paths.Port(mac(name), paths.Firewall(kind)) for name, kind in kinds.items()}, rate=0, delay=0.01
    )


def carried(wan, source, data, now):
    """Who has got a frame, an hour after nobody sent anything more."""
    wan.take(source, data, now)
    return wan.due(now + 0.02)


def test_a_frame_comes_after_the_delay_and_not_before(wan):
    sent = frame("one", "home", 6)
    wan.take("home", frame("home", "one", 6, (2000, 1000)), 0.0)
    wan.take("one", sent, 0.0)
    assert wan.due(0.0099) == [] and wan.next_time() == pytest.approx(0.01)
    # First it reaches the line, which lets it in and is done with it at once.
    assert ("home", sent) in wan.due(0.0101) and wan.next_time() is None


def test_the_closed_firewall_lets_in_answers_only(wan):
    assert carried(wan, "one", frame("one", "home", 6, (7, 22)), 0) == []
    assert len(carried(wan, "home", frame("home", "one", 17, (5000, 4789)), 1)) == 1
    assert len(carried(wan, "one", frame("one", "home", 17, (4789, 5000)), 2)) == 1
    # VXLAN as it usually is, with a source port of its own, is no answer.
    assert carried(wan, "one", frame("one", "home", 17, (40000, 5000)), 3) == []
    assert carried(wan, "one", frame("one", "home", 17, (4789, 5000)), 70) == [], "forgotten after a minute of silence"


def test_the_closed_firewall_lets_in_errors_echoes_and_fragments_of_what_it_knows(wan):
    assert carried(wan, "one", frame("one", "home", 1, (8, 77)), 0) == []
    assert carried(wan, "one", frame("one", "home", 17, offset=185), 0) == []
    carried(wan, "home", frame("home", "one", 1, (8, 77)), 1)
    assert len(carried(wan, "one", frame("one", "home", 1, (0, 77)), 1.1)) == 1
    assert len(carried(wan, "one", frame("one", "home", 1, (3, 0)), 1.2)) == 1
    assert len(carried(wan, "one", frame("one", "home", 17, offset=185), 1.3)) == 1


def test_no_udp_either_way_and_the_rest_goes(wan):
    assert carried(wan, "one", frame("one", "two", 17), 0) == []
    assert carried(wan, "two", frame("two", "one", 17), 0) == []
    assert len(carried(wan, "two", frame("two", "one", 6), 0)) == 1


def test_only_arp_goes_to_all_and_only_ip_to_one(wan):
    arp = b"\xff" * 6 + mac("one") + b"\x08\x06" + bytes(46)
    assert sorted(name for name, dummy in carried(wan, "one", arp, 0)) == ["home", "two"]
    assert carried(wan, "one", b"\xff" * 6 + frame("one", "two", 6)[6:], 1) == []
    assert carried(wan, "one", mac("two") + mac("one") + b"\x86\xdd" + bytes(60), 2) == []


def test_a_cut_way_carries_nothing_until_it_is_over(wan):
    wan.cuts = {frozenset(("one", "two")): 5.0}
    assert carried(wan, "one", frame("one", "two", 6), 4.9) == []
    assert len(carried(wan, "one", frame("one", "two", 6), 5.1)) == 1


def test_the_rate_is_kept_and_what_waits_too_long_is_dropped(wan):
    wan.rate = 100e6
    got, now = 0, 0.0
    size = 1514
    for dummy in range(20000):
        wan.take("two", frame("two", "one", 6, size=size), now)
        now += 0.00005
        got += len(wan.due(now))
    # Twice as much was sent as the line carries.
    assert got * (size + paths.OVERHEAD) * 8 / now == pytest.approx(100e6, rel=0.03)
    assert got < 10000
