# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast links between sites are, beside tunnels of the same kind made by hand and the bare path, and how long it
takes to connect N sites.

Each is measured on the bare lab network and on the emulated WAN (100 Mbit/s, 20 ms), with and without segmentation
offload. What is measured over a link is a network namespace plugged into the network's bridge, as a machine is. Ours
and the one made by hand are both there, and are measured in turns: the machine's own speed changes more from minute to
minute than they differ. While it is the other's turn our rules are unloaded. ``VNET`` is what the paper tells of the
work that this one follows: a round trip of 1.6 x the physical path's.

``CASE=vxlan,connect`` keeps to cases that begin so. All sites are hosts of their own, containers with systemd and SSH,
32 as well: a namespace alone has no units that could come back after a reboot.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

import choice
import overlay_ways as ways
from measure import CHECKOUT, LAB, Row, on, play


class Turns(t.NamedTuple):
    """How often each is measured, by how many connections of how many seconds, and in which of the turns its round trip
    is as well."""

    count: int
    times: int
    seconds: float
    pinged: int


BARE, WAN = Turns(36, 3, 0.4, 4), Turns(12, 1, 1.5, 1)
"""One connection differs from the next by 12 %, and what the machine does besides changes within seconds: many that are
short tell more than few that are long. Over a WAN TCP takes longer to find its rate."""
SITES = (2, 8, 32)
NAME = "bench"
VNET = 1.6
"""A round trip over VNET as a multiple of the physical path's, as its authors measured it."""
GOAL = 0.95
KINDS = ("vxlan", "wireguard", "ssh")
CASES = (*KINDS, *(f"connect {count} sites" for count in SITES))
SPACES = {ways.OURS: "virtuoso", ways.BY_HAND: "made by hand"}
NETWORKS = (("bare lab network", False), ("WAN 100 Mbit/s 20 ms", True))


def wanted(case: str) -> bool:
    """Whether the case is to be measured."""
    return case in choice.chosen(CASES)


def bridge_name(network: str) -> str:
    """The bridge of a network of ours."""
    text = on("provider1", "cat /etc/virtuoso/overlay/part.json")
    return next(entry["bridge"] for entry in json.loads(text)["networks"] if entry["name"] == network)


@contextlib.contextmanager
def ours(kind: str) -> t.Iterator[int]:
    """Our network between the two hosts, by this transport; its MTU."""
    network = {
        "name": NAME,
        "home": ways.NEAR,
        "hosts": [ways.NEAR, ways.FAR],
        "transports": [{"between": [ways.NEAR, ways.FAR], "transport": kind}],
    }
    try:
        # The package wireguard-go for a kernel without WireGuard; for the hand-made tunnel as well.
        play(
            "overlay",
            virtuoso_networks=[network],
            virtuoso_home_networks=[],
            virtuoso_overlay_wireguard="userspace" if kind == "wireguard" else "none",
        )
        bridge = bridge_name(NAME)
        mtu = int(on(ways.NEAR, f"cat /sys/class/net/{bridge}/mtu"))
        with ways.plugged(dict.fromkeys(ways.ADDRESSES, bridge), mtu):
            ways.as_machines(NAME)
            yield mtu
    finally:
        play("overlay", virtuoso_networks=[], virtuoso_home_networks=[])


def rounds(spaces: t.Sequence[str | None], turns: Turns) -> dict[str | None, list[ways.Speed]]:
    """Many short rounds for each, in turns: others use the machine as well."""
    found: dict[str | None, list[ways.Speed]] = {space: [] for space in spaces}
    with ways.served(spaces):
        for turn in range(turns.count):
            # Whoever came last comes first in the next round, so that nobody has the better place.
            for space in spaces if turn % 2 else reversed(spaces):
                with ways.without_rules() if space == ways.BY_HAND else contextlib.nullcontext():
                    found[space].append(
                        ways.speed(turns.seconds, space, times=turns.times, pinged=turn % turns.pinged == 0)
                    )
    return found


def median(speeds: t.Sequence[ways.Speed]) -> ways.Speed:
    """Of each measure by itself."""
    return ways.Speed(
        statistics.median(one.mbit for one in speeds),
        statistics.median(one.rtt for one in speeds if one.rtt is not None),
    )


def ratio(ones: t.Iterable[ways.Speed], others: t.Iterable[ways.Speed]) -> tuple[float, float, float]:
    """The geometric mean of the rounds' ratios, and between what it is with 95 % certainty."""
    logs = [math.log(one.mbit / other.mbit) for one, other in zip(ones, others)]
    mean, width = statistics.mean(logs), 1.96 * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - width), math.exp(mean + width)


class Table:
    """The rows, told as they come."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, case: str, who: str, metric: str, value: float, unit: str) -> None:
        print(f"bench: {case}: {who}: {metric} {value:.3f} {unit}", flush=True)
        self.rows.append({"area": "overlay", "case": case, "who": who, "metric": metric, "value": value, "unit": unit})

    def speed(self, case: str, who: str, found: ways.Speed, raw: ways.Speed) -> None:
        """Throughput, round trip, and that as a multiple of the bare path's."""
        self.add(case, who, "TCP", found.mbit, "Mbit/s")
        self.add(case, who, "RTT", found.rtt, "ms")
        self.add(case, who, "RTT of the path's", found.rtt / raw.rtt, "x")


def links(table: Table) -> None:
    """Every transport on both networks."""
    for network, wan in NETWORKS if any(map(wanted, KINDS)) else ():
        if wan:
            ways.lab("wan", "on", "--firewall", "home1=open", "--firewall", "provider2=open")
        turns = WAN if wan else BARE
        try:
            raw = {}
            for offload in (True, False):
                ways.offload(offload, ())
                raw[offload] = median(rounds([None], turns)[None])
            for kind in filter(wanted, KINDS):
                with ours(kind) as mtu, ways.hand_made(kind, mtu):
                    found = _both(turns)
                for offload in (True, False):
                    case = f"{kind}, {network}, {'with' if offload else 'without'} offload"
                    for space, who in SPACES.items():
                        table.speed(case, who, median(found[offload][space]), raw[offload])
                    table.speed(case, "bare path", raw[offload], raw[offload])
                    table.add(case, "VNET (paper)", "RTT of the path's", VNET, "x")
                    # By round: what changes from minute to minute changes for both.
                    middle, least, most = ratio(found[offload][ways.OURS], found[offload][ways.BY_HAND])
                    table.add(case, "virtuoso", f"TCP of the hand-made (goal {GOAL})", middle, "x")
                    table.add(case, "virtuoso", "TCP of the hand-made, 95 % sure: from", least, "x")
                    table.add(case, "virtuoso", "TCP of the hand-made, 95 % sure: to", most, "x")
        finally:
            ways.offload(True, ())
            if wan:
                ways.lab("wan", "off")


def _both(turns: Turns) -> dict[bool, dict[str, list[ways.Speed]]]:
    found = {}
    for offload in (True, False):
        ways.offload(offload, SPACES)
        found[offload] = rounds(list(SPACES), turns)
    ways.offload(True, SPACES)
    return found


def connect(table: Table) -> None:
    """Seconds from hosts that have nothing of it to a network over N of them, and of a run that changes nothing."""
    extra: list[str] = []
    try:
        for count in (count for count in SITES if wanted(f"connect {count} sites")):
            while len(extra) + 2 < count:
                name, number = f"site{len(extra):02}", 100 + len(extra)
                ways.lab("host-up", name, "--image", "host-bookworm", "--address", f"198.18.0.{number}")
                extra.append(name)
            hosts = {**ways.ADDRESSES, **{name: f"198.18.0.{100 + number}" for number, name in enumerate(extra)}}
            chosen = dict(list(hosts.items())[:count])
            network = {"name": NAME, "home": ways.NEAR, "hosts": list(chosen)}
            case = f"connect {count} sites"
            table.add(case, "virtuoso", "time", _run(chosen, [network]), "s")
            table.add(case, "virtuoso", "time of a second run", _run(chosen, [network]), "s")
            table.add(case, "floor", "time", _ping(chosen), "s")
            _run(chosen, [])
            table.add(case, "made by hand (ssh and ip)", "time", _by_hand(chosen), "s")
    finally:
        for name in extra:
            ways.lab("host-down", name)


def _inventory(hosts: t.Mapping[str, str], directory: str) -> Path:
    common = (
        f"-o 'UserKnownHostsFile=\"{LAB.parents[2] / 'build/lab/known_hosts'}\"' -o "
        f"StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    )
    variables = {
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": common,
        "ansible_ssh_private_key_file": str(LAB.parents[2] / "build/lab/id_ed25519"),
    }
    path = Path(directory) / "hosts.json"
    group = {"hosts": {name: {"ansible_host": address} for name, address in hosts.items()}, "vars": variables}
    path.write_text(json.dumps({"all": {"children": {"homes": group}}}), encoding="utf-8")
    return path


def _ansible(*argv: str) -> float:
    begin = time.monotonic()
    env = {**os.environ, "ANSIBLE_FORKS": "16"}
    done = subprocess.run(
        list(argv),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=1200,
        check=False,
        env=env,
    )
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(argv)} failed\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")
    return time.monotonic() - begin


def _run(hosts: t.Mapping[str, str], networks: t.Sequence[t.Any]) -> float:
    with tempfile.TemporaryDirectory() as directory:
        inventory = _inventory(hosts, directory)
        variables = json.dumps(
            {"virtuoso_networks": list(networks), "virtuoso_home_networks": [], "virtuoso_state_dir": directory}
        )
        return _ansible("ansible-playbook", "-i", str(inventory), "virtuoso.grid.overlay", "-e", variables)


def _ping(hosts: t.Mapping[str, str]) -> float:
    with tempfile.TemporaryDirectory() as directory:
        return _ansible("ansible", "-i", str(_inventory(hosts, directory)), "all", "-m", "ansible.builtin.ping")


def _by_hand(hosts: t.Mapping[str, str]) -> float:
    """A star of VXLAN links typed in a loop, host by host: nothing is probed, checked, kept over a boot or taken away
    but by hand."""
    centre, *leaves = hosts.items()
    begin = time.monotonic()
    on(centre[0], "ip link add benchbr type bridge; ip link set benchbr up")
    for number, (name, address) in enumerate(leaves, start=1):
        link = (
            "ip link add benchv{0} type vxlan id {1} remote {2} dstport 8472; ip link set benchv{0} mtu 1450 "
            "master benchbr up"
        )
        on(centre[0], link.format(number, 7000 + number, address))
        on(
            name,
            "ip link add benchbr type bridge; ip link set benchbr up;" + link.format(number, 7000 + number, centre[1]),
        )
    seconds = time.monotonic() - begin
    for name in hosts:
        on(name, "for link in $(ip -br link | grep -oE '^bench(v[0-9]+|br)'); do ip link del $link; done")
    return seconds


def measure() -> list[Row]:
    """All of it."""
    table = Table()
    ways.lab("wan", "off")
    ways.install()
    try:
        links(table)
        connect(table)
    finally:
        ways.uninstall()
    return table.rows
