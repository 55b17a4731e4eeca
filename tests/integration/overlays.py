# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network over the lab's three hosts, on its emulated WAN, with a machine on each provider: made, looked at from
inside, disturbed, removed."""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import re
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import model
from walking import CHECKOUT, LAB, PROVIDERS, Grid, Row, Run, on_host, until

HOME = "home1"
HOSTS = (HOME, *PROVIDERS)
NETWORK = "it-lan"
BRIDGE = model.bridge_name(NETWORK)
LAN = "it-lan0"
KEY = "/root/.ssh/it_overlay"
FRAMES = Path(CHECKOUT) / "tests" / "support" / "frames.py"
BACK = 10.0
"""Seconds in which everything is to be back by itself."""

HOME_NETWORKS = [
    {
        "network": NETWORK,
        "bridge": LAN,
        "make": True,
        "address": "198.18.77.1/24",
        "dhcp": {"first": "198.18.77.100", "last": "198.18.77.199", "domain": "it.home.arpa"},
    }
]


def lab(*arguments: str, deadline: float = 60) -> str:
    """Run lab.py."""
    argv = [sys.executable, str(CHECKOUT / "tests" / "lab" / "lab.py"), *arguments]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=deadline, check=False)
    assert done.returncode == 0, f"lab.py {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


class Overlay:
    """The network, and the store, inventory and machines of its tests."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.addresses: dict[str, str] = {}

    def network(self, **fields: t.Any) -> Row:
        """The entry of ``virtuoso_networks``."""
        return {"name": NETWORK, "home": HOME, **fields}

    def start(self, *arguments: str, present: bool = True, **fields: t.Any) -> Run:
        """Begin the play that makes the network, or removes it."""
        return self.grid.start(
            "overlay",
            *arguments,
            virtuoso_networks=[self.network(**fields)] if present else [],
            virtuoso_home_networks=HOME_NETWORKS if present else [],
        )

    def make(self, *arguments: str, **fields: t.Any) -> Run:
        """As :meth:`start`, and wait for its good end."""
        return self.start(*arguments, **fields).wait().succeeded()

    def deploy(self, machines: t.Sequence[Row]) -> Run:
        """Deploy machines on it."""
        variables = {
            "virtuoso_networks": [self.network()],
            "virtuoso_home_networks": HOME_NETWORKS,
            "virtuoso_screenshots": False,
        }
        run = self.grid.play("deploy", machines=machines, **variables).succeeded()
        self.addresses = {row["name"]: row["addresses"][0] for row in run.report["machines"] if row.get("addresses")}
        on_host(HOME, f"cat >{KEY} <<'END'\n{(LAB / 'id_ed25519').read_text(encoding='utf-8')}END\nchmod 600 {KEY}")
        return run

    def two_machines(self) -> list[str]:
        """Make the network, and a machine on each provider."""
        self.make()
        key = (LAB / "id_ed25519.pub").read_text(encoding="utf-8").strip()
        names = self.grid.names(2)
        users = [{"name": "root", "ssh_authorized_keys": [key]}]
        machines = self.grid.machines(2, network=NETWORK, users=users)
        machines[0]["anti_affinity"] = [names[1]]
        self.deploy(machines)
        return names

    def inside(self, name: str, command: str, *, check: bool = True) -> str:
        """What a command says on a machine, which is reached from home."""
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=10"
        return on_host(HOME, f"ssh -n -i {KEY} {options} root@{self.addresses[name]} '{command}'", check=check)

    def by_inventory(self, command: str) -> str:
        """What ``ansible machines`` says of a command: the inventory alone knows the way."""
        argv = [
            "ansible",
            "-i",
            str(self.grid.inventory),
            "machines",
            "-m",
            "ansible.builtin.raw",
            "-a",
            command,
            "-e",
            f"virtuoso_lab_dir={LAB}",
        ]
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build" / "collections"),
        }
        done = subprocess.run(
            argv,
            cwd=CHECKOUT,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ping(self, name: str, target: str, count: int = 10, interval: float = 0.1) -> Row:
        """Sent, received and the least round trip of a ping from a machine."""
        return read_ping(self.inside(name, f"ping -c {count} -i {interval} {target}", check=False))

    def reached(self, name: str) -> bool:
        """Whether home reaches a machine, or an address, at once."""
        return (
            on_host(HOME, f"ping -c 1 -W 1 {self.addresses.get(name, name)} >/dev/null && echo yes || true").strip()
            == "yes"
        )

    def back(self, name: str, what: str, since: float) -> float:
        """Wait until home reaches it; seconds since then. More than :data:`BACK` is a failure."""
        until(what, lambda: self.reached(name), deadline=BACK, interval=0.1)
        return time.monotonic() - since

    def clean(self) -> None:
        """Remove what a failed test may have left, without the help of what is being tested."""
        for host in HOSTS:
            on_host(host, CLEAN, check=False)


CLEAN = f"""
systemctl list-units --all --plain --no-legend 'virtuoso-overlay-[sfw]*' 'virtuoso-home*' | cut -d ' ' -f 1 |
    while read -r unit; do systemctl disable --now $unit </dev/null; done
rm -rf /etc/virtuoso/overlay/part*.json /etc/virtuoso/overlay/ssh/* /etc/virtuoso/overlay/authorized_keys
rm -rf /etc/virtuoso/overlay/wireguard.* /etc/virtuoso/overlay/frr.conf
rm -rf /etc/virtuoso/home/{NETWORK} /var/lib/virtuoso-home/{NETWORK}.leases
ip -br link | grep -oE '^(vb|ve|vt|vw|vh|vl|tap)[0-9a-f]+|^vwg0|^vhit0|^{LAN}' |
    while read -r link; do ip link delete $link; done
nft list tables | grep virtuoso_ | while read -r line; do nft delete $line; done
rm -f {KEY} /root/it_frames.py /run/virtuoso-overlay.*
"""


def read_ping(text: str) -> Row:
    """What ping said at its end."""
    counts = re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", text)
    times = re.search(r"= ([\d.]+)/", text)
    assert counts, f"ping said: {text}"
    return {
        "sent": int(counts.group(1)),
        "received": int(counts.group(2)),
        "rtt": float(times.group(1)) if times else None,
    }


class Pinging:
    """A ping of 10 ms from one machine to another while something is done.

    On the lab's few cores answers come in heaps, of which busybox's ping, whose buffer is 7 KiB, takes the first dozen.
    What its socket had no room for has reached the machine: the kernel there counts it, and it isn't lost.
    """

    def __init__(self, overlay: Overlay, name: str, target: str) -> None:
        self._overlay, self._name, self._target = overlay, name, target
        self._text, self._dropped = "", 0

    def __enter__(self) -> Pinging:
        command = f"ping -i 0.01 {self._overlay.addresses[self._target]} >/tmp/ping.txt 2>&1 & echo $! >/tmp/ping.pid"
        self._overlay.inside(self._name, command)
        return self

    def __exit__(self, *_exc: t.Any) -> None:
        # The last column of the only raw socket: what it had no room for.
        dropped = 'tail -n +2 /proc/net/raw | sed "s/.* //"'
        seen = 'sed -n "s/.*seq=\\([0-9]*\\).*/\\1/p" /tmp/ping.txt | sort -n'
        command = (
            f"{dropped} >/tmp/ping.dropped; kill -INT $(cat /tmp/ping.pid); sleep 0.3; cat "
            f"/tmp/ping.dropped; {seen}; rm /tmp/ping.*"
        )
        dropped, self._text = self._overlay.inside(self._name, command).split("\n", 1)
        self._dropped = int(dropped)

    @property
    def lost(self) -> list[int]:
        """The numbers of those without an answer, before the last that was answered: where the gap is tells when. None
        where all of them reached the machine and only ping's own socket had no room for them."""
        answered = list(map(int, self._text.split()))
        assert len(answered) > 100 and len(answered) == len(set(answered)), self._text[-300:]
        missing = sorted(set(range(max(answered))) - set(answered))
        return missing if len(missing) > self._dropped else []


def plug(host: str) -> None:
    """A port of the network's bridge on a host, as a machine has, without an address. It has the same MAC address
    whenever it is made, as a machine's has: others hold what they know of it for half a minute.

    At home it may get one in the same network as the LAN's bridge: Linux would then answer for each of the two by both
    (arp_ignore in ip-sysctl).
    """
    apart = (
        f"for each in vhit1 {LAN}; do [ ! -e /proc/sys/net/ipv4/conf/$each ] || echo 1 "
        f">/proc/sys/net/ipv4/conf/$each/arp_ignore; done"
    )
    mac = f"02:00:5e:00:54:{HOSTS.index(host):02x}"
    make = (
        f"ip link add vhit0 type veth peer name vhit1 address {mac}; ip link set vhit0 master {BRIDGE} up; "
        f"ip link set vhit1 up; {apart}"
    )
    on_host(host, f"ip link show vhit0 >/dev/null 2>&1 || {{ {make}; }}")


def storm(sender: str, *, seconds: float, rate: int = 1000) -> dict[str, Row]:
    """Broadcast from one site; what each site saw of it, the sender's own port too."""
    text = FRAMES.read_text(encoding="utf-8")
    for host in HOSTS:
        plug(host)
        on_host(host, f"cat >/root/it_frames.py <<'END_OF_FRAMES'\n{text}\nEND_OF_FRAMES")
    tag, number = random.getrandbits(32), int(seconds * rate)
    counting = f"python3 /root/it_frames.py count vhit1 {number} {seconds + 6} {tag}"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        heard = {host: pool.submit(on_host, host, counting) for host in HOSTS}
        ready = f"grep -l {tag} /proc/[0-9]*/cmdline | wc -l"
        for host in HOSTS:
            until(
                "the counters", lambda host=host: int(on_host(host, ready).strip() or 0) > 1, deadline=10, interval=0.1
            )
        on_host(sender, f"sleep 0.3; python3 /root/it_frames.py send vhit1 {number} {rate} {tag}")
        found = {host: json.loads(future.result()) for host, future in heard.items()}
    return {host: {**row, "sent": number} for host, row in found.items()}


def leftovers(host: str) -> str:
    """Whatever of networks is on a host: interfaces, rules, units, keys; empty where there is nothing."""
    script = f"""
    ip -br link | grep -oE '^(vb|ve|vt|vw|vh|vl|vm|tap)[0-9a-f]+|^vwg0|^{LAN}'
    nft list tables | grep virtuoso_
    systemctl list-units --all --plain --no-legend 'virtuoso-overlay-*' 'virtuoso-home*' | cut -d ' ' -f 1
    find /etc/systemd/system -name 'virtuoso-overlay-ssh@tap*' -o -name 'virtuoso-home*@{NETWORK}*'
    find /etc/virtuoso/overlay /etc/virtuoso/home /var/lib/virtuoso-home -type f 2>/dev/null
    """
    return on_host(host, script + "true").strip()
