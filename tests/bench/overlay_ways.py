# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways between two hosts of the lab, and how fast they are: the bare path, tunnels made by hand, and what is plugged
into a bridge.

What is measured over a tunnel is a network namespace on each host, with a cable to the bridge that the tunnel is a port
of, as a machine has: the same for ours and for those made by hand.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import statistics
import subprocess
import time
import typing as t
from pathlib import Path

from measure import LAB, on

NEAR, FAR = "provider1", "provider2"
ADDRESSES = {NEAR: "198.18.0.21", FAR: "198.18.0.22"}
INNER = {NEAR: "10.99.0.1", FAR: "10.99.0.2"}
OURS, BY_HAND = "bench", "byhand"
CABLES = {OURS: "vm02be00000001", BY_HAND: "byhand0"}
"""By namespace. To our rules ours is a machine's."""
PORT = 5201
KEY = "/root/.bench_ed25519"
FLOW = Path(__file__).resolve().parent / "flow.py"


class Speed(t.NamedTuple):
    """Mbit/s of TCP, and round trip in ms where it was measured."""

    mbit: float
    rtt: float | None


def lab(*arguments: str) -> None:
    """Run lab.py."""
    done = subprocess.run(
        ["/usr/bin/python3", str(LAB), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"bench: lab.py {' '.join(arguments)} failed: {done.stdout}{done.stderr}")


def install() -> None:
    """The measuring program on both hosts, and a key by which the far one logs in on the near one: the session begins
    there as ours does.

    It matters which end does: the server of OpenSSH 9.2 takes twice the processor time of its client for what it sends.
    """
    text = FLOW.read_text(encoding="utf-8")
    for host in ADDRESSES:
        on(host, f"cat >/root/bench_flow.py <<'END_OF_FLOW'\n{text}\nEND_OF_FLOW")
    public = on(FAR, f"test -e {KEY} || ssh-keygen -q -t ed25519 -N '' -C bench -f {KEY}; cat {KEY}.pub").strip()
    on(NEAR, f"grep -q '{public}' .ssh/authorized_keys || echo '{public}' >>.ssh/authorized_keys")
    on(NEAR, "echo 'PermitTunnel yes' >/etc/ssh/sshd_config.d/bench.conf; systemctl reload ssh")


def uninstall() -> None:
    """Nothing of it stays."""
    on(FAR, f"rm -f {KEY} {KEY}.pub /root/bench_flow.py")
    on(
        NEAR,
        "sed -i '/ bench$/d' .ssh/authorized_keys; rm -f /etc/ssh/sshd_config.d/bench.conf /root/bench_flow.py; "
        "systemctl reload ssh",
    )


@contextlib.contextmanager
def plugged(bridges: t.Mapping[str, str], mtu: int, space: str = OURS) -> t.Iterator[None]:
    """A namespace on each host, with a cable to a bridge there."""
    cable = CABLES[space]
    try:
        for host, bridge in bridges.items():
            on(
                host,
                f"set -e; ip netns add {space}; ip link add {cable} type veth peer name eth0 netns {space};"
                f"ip link set {cable} mtu {mtu} master {bridge} up; ip netns exec {space} ip link set eth0 mtu "
                f"{mtu} up;"
                f"ip netns exec {space} ip addr add {INNER[host]}/24 dev eth0; ip netns exec {space} ip link set lo up",
            )
        yield
    finally:
        for host in bridges:
            on(
                host,
                f"ip netns pids {space} 2>/dev/null | xargs -r kill; ip netns del {space} 2>/dev/null; ip link "
                f"del {cable} 2>/dev/null; true",
            )


def as_machines(network: str) -> None:
    """Have our rules take what is plugged in for machines, which send from their own address only, and are counted."""
    change = "import json, sys; path = '/etc/virtuoso/overlay/part.json'; part = json.load(open(path));"
    change += (
        "part['guests'] = [dict(zip(('device', 'mac', 'network'), sys.argv[1:]))]; json.dump(part, open(path, 'w'))"
    )
    for host in ADDRESSES:
        mac = on(host, f"ip netns exec {OURS} cat /sys/class/net/eth0/address").strip()
        on(
            host,
            f'python3 -c "{change}" {CABLES[OURS]} {mac} {network} && python3 /usr/local/lib/virtuoso/overlay.py apply',
        )


@contextlib.contextmanager
def without_rules() -> t.Iterator[None]:
    """Our rules are out of the way meanwhile: every frame of every bridge would meet them, that of a tunnel made by
    hand as well."""
    try:
        everywhere(
            "".join(
                f"nft delete table {table};"
                for table in ("bridge virtuoso_overlay", "inet virtuoso_overlay", "bridge virtuoso_traffic")
            )
        )
        yield
    finally:
        everywhere("nft -f /run/virtuoso-overlay.nft")


def everywhere(command: str) -> None:
    """On both hosts at once."""
    with concurrent.futures.ThreadPoolExecutor(len(ADDRESSES)) as pool:
        list(pool.map(lambda host: on(host, command), ADDRESSES))


def offload(wanted: bool, spaces: t.Collection[str]) -> None:
    """Segmentation offload of the hosts' network cards, and of the namespaces' cables."""
    word = "on" if wanted else "off"
    for host in ADDRESSES:
        on(host, f"python3 /root/bench_flow.py offload {word} eth0 {' '.join(CABLES[space] for space in spaces)}")
        for space in spaces:
            on(host, f"ip netns exec {space} python3 /root/bench_flow.py offload {word} eth0")


def _within(space: str | None) -> tuple[str, str]:
    """How a command is run in a namespace, and the address that it reaches the far host by."""
    return (f"ip netns exec {space} ", INNER[FAR]) if space else ("", ADDRESSES[FAR])


@contextlib.contextmanager
def served(spaces: t.Iterable[str | None]) -> t.Iterator[None]:
    """The far host answers in these namespaces, or as itself, and is reached by the near one."""
    units = {f"bench-flow{number}": space for number, space in enumerate(spaces)}
    try:
        for unit, space in units.items():
            within, target = _within(space)
            on(FAR, f"systemd-run -q --unit={unit} --collect {within}python3 /root/bench_flow.py serve 0.0.0.0 {PORT}")
            on(
                NEAR,
                f"for n in $(seq 50); do {within}ping -c 1 -W 1 {target} >/dev/null && exit 0; sleep 0.1; done; exit 1",
            )
        yield
    finally:
        on(FAR, f"systemctl stop {' '.join(units)}")


def speed(seconds: float, space: str | None, times: int = 1, pinged: bool = True) -> Speed:
    """TCP from the near host to the far one, the mean of so many connections, and if asked the median round trip when
    nothing else is under way; between these namespaces, or the hosts themselves."""
    within, target = _within(space)
    ping = f"{within}ping -c 12 -i 0.05 {target} &&" if pinged else ""
    lines = (
        on(NEAR, f"{ping} {within}python3 /root/bench_flow.py send {target} {PORT} {seconds} {times}")
        .strip()
        .splitlines()
    )
    # The first is slower than all others: what it needs is in no cache.
    trips = [float(value) for value in re.findall(r"time=([\d.]+) ms", "\n".join(lines))]
    return Speed(
        statistics.mean(json.loads(line)["mbit"] for line in lines[-times:]),
        statistics.median(trips) if trips else None,
    )


def _bridge(host: str, name: str, mtu: int) -> str:
    return f"ip link add {name} type bridge; ip link set {name} mtu {mtu} up;"


@contextlib.contextmanager
def hand_made(kind: str, mtu: int) -> t.Iterator[None]:
    """A tunnel between bridges `benchbr`, made as a knowing person would: `vxlan`, `wireguard` (VXLAN inside) or
    `ssh`."""
    try:
        for host in ADDRESSES:
            on(host, "set -e;" + _bridge(host, "benchbr", mtu))
        {"vxlan": _vxlan, "wireguard": _wireguard, "ssh": _ssh}[kind](mtu)
        with plugged(dict.fromkeys(ADDRESSES, "benchbr"), mtu, BY_HAND):
            yield
    finally:
        for host in ADDRESSES:
            links = "for link in benchvx tap77 benchwg benchbr; do ip link del $link 2>/dev/null; done"
            on(host, f"systemctl stop bench-tunnel 2>/dev/null; rm -f /root/.bench_wg; {links}; true")


def _vxlan(mtu: int) -> None:
    for host, other in ((NEAR, FAR), (FAR, NEAR)):
        on(
            host,
            f"ip link add benchvx type vxlan id 7777 remote {ADDRESSES[other]} dstport 8472; ip link set "
            f"benchvx mtu {mtu} master benchbr up",
        )


def _wireguard(mtu: int) -> None:
    inner = {NEAR: "10.98.0.1", FAR: "10.98.0.2"}
    public = {
        host: on(host, "umask 077; wg genkey >/root/.bench_wg; wg pubkey </root/.bench_wg").strip()
        for host in ADDRESSES
    }
    for host, other in ((NEAR, FAR), (FAR, NEAR)):
        begin = (
            "ip link add benchwg type wireguard 2>/dev/null || systemd-run -q --unit=bench-tunnel "
            "wireguard-go -f benchwg;"
        )
        begin += "for n in $(seq 50); do wg show benchwg >/dev/null 2>&1 && break; sleep 0.1; done;"
        peer = f"peer {public[other]} endpoint {ADDRESSES[other]}:51821 allowed-ips {inner[other]}/32"
        up = (
            f"wg set benchwg listen-port 51821 private-key /root/.bench_wg {peer}; ip addr add "
            f"{inner[host]}/24 dev benchwg;"
        )
        up += f"ip link set benchwg mtu {mtu + 50} up;"
        inside = (
            f"ip link add benchvx type vxlan id 7777 remote {inner[other]} dstport 8472; ip link set "
            f"benchvx mtu {mtu} master benchbr up"
        )
        on(host, begin + up + inside)


def _ssh(mtu: int) -> None:
    options = (
        "-o Tunnel=ethernet -o ExitOnForwardFailure=yes -o StrictHostKeyChecking=no -o "
        "UserKnownHostsFile=/dev/null -o ServerAliveInterval=5"
    )
    on(
        FAR,
        f"systemd-run -q --unit=bench-tunnel ssh -N -i {KEY} {options} -c aes128-gcm@openssh.com -w 77:77 "
        f"root@{ADDRESSES[NEAR]}",
    )
    end = time.monotonic() + 20
    for host in ADDRESSES:
        while on(host, "ip -br link show dev tap77 2>/dev/null | wc -l").strip() != "1":
            if time.monotonic() > end:
                raise SystemExit(
                    "bench: the hand-made SSH tunnel does not come up: "
                    + on(FAR, "journalctl -u bench-tunnel -n 5 --no-pager")
                )
            time.sleep(0.1)
        on(host, f"ip link set tap77 mtu {mtu} master benchbr up")
