# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's WAN: 100 Mbit/s and 20 ms between the hosts, a firewall that admits nothing inbound before home1, no UDP at
provider2.

Off until it is asked for. The controller, which stands for the operator at home, reaches all hosts as without it: only
what the hosts send each other is taken from the bridge, by rules of the netdev family, to a tap each, and carried by
wan_daemon.py. `lab.py down` ends it, as does the bridge's end.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import typing as t
import uuid
from pathlib import Path

import hosts
from command import LabError, podman, podman_json, run, say
from definition import BUILD, HOSTS, NETWORK, Host

SETTINGS = BUILD / "wan.json"
LOG = BUILD / "wan.log"
DAEMON = Path(__file__).resolve().parent / "wan_daemon.py"
TABLE = "virtuoso_lab_wan"
DEADLINE = 10
RATE, ROUND_TRIP = 100.0, 20.0
FIREWALLS = {"home1": "closed", "provider1": "open", "provider2": "no_udp"}
KINDS = ("open", "closed", "no_udp")

Settings = t.Dict[str, t.Any]


def _read() -> Settings:
    try:
        return json.loads(SETTINGS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write(settings: Settings) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    new = SETTINGS.with_suffix(".new")
    new.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    new.rename(SETTINGS)


def _process() -> int | None:
    """The daemon's number, while it is there."""
    # Its command line ends with the settings' path.
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if (
                bytes(DAEMON) in words
                and bytes(SETTINGS) in words
                and not any(word.endswith(b"sudo") for word in words[:1])
            ):
                return int(entry.name)
    return None


def is_on() -> bool:
    """Whether the hosts' frames go through it."""
    return bool(_read()) and _process() is not None


def _bridge() -> str:
    found = podman_json("network", "inspect", NETWORK)
    if not found:
        raise LabError("there is no lab: make lab")
    return found[0]["network_interface"]


def _tap(host: Host) -> str:
    return f"wan-{host.name}"


def _cable(host: Host) -> str:
    """The controller's end of the host's cable; it has another name after each start of the host."""
    index = podman("exec", host.container, "cat", "/sys/class/net/eth0/iflink").stdout.strip()
    for line in run(["ip", "-o", "link"]).stdout.splitlines():
        number, name = line.split(": ")[:2]
        if number == index:
            return name.partition("@")[0]
    raise LabError(f"{host.name}'s network card is no cable to this machine: it can't be put on the WAN")


def _rules(cables: dict[str, str]) -> str:
    """What takes the hosts' frames to each other off the bridge. The whole table in one transaction."""
    macs = {host.name: host.mac for host in HOSTS}
    lines = [f"table netdev {TABLE} {{}}", f"delete table netdev {TABLE}", f"table netdev {TABLE} {{"]
    for host in HOSTS:
        others = ", ".join(mac for name, mac in macs.items() if name != host.name)
        hook = "type filter hook ingress device {} priority 0"
        lines += [
            f" chain from_{host.name} {{ {hook.format(cables[host.name])};",
            f'  ether daddr {{ {others} }} fwd to "{_tap(host)}"',
            f'  ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 dup to "{_tap(host)}"',
            " }",
            f' chain to_{host.name} {{ {hook.format(_tap(host))}; fwd to "{cables[host.name]}"; }}',
        ]
    return "\n".join([*lines, "}"]) + "\n"


def plug() -> None:
    """Put the hosts' cables on the WAN, those of hosts that were started anew as well."""
    cables = {host.name: _cable(host) for host in HOSTS}
    for host in HOSTS:
        run(["ip", "link", "set", "dev", _tap(host), "mtu", "1500", "txqueuelen", "2000", "up"])
    for cable in cables.values():
        # What a host sends to all still reaches the controller, and no other host.
        run(["bridge", "link", "set", "dev", cable, "isolated", "on"])
    run(["nft", "-f", "-"], stdin=_rules(cables))


def _start() -> None:
    argv = ["/usr/bin/python3", str(DAEMON), str(SETTINGS)]
    if os.geteuid() != 0:
        argv = ["sudo", *argv]
    with LOG.open("wb") as log:
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True)  # pylint: disable=consider-using-with
    end = time.monotonic() + DEADLINE
    # Not by /sys, which may show another network namespace's.
    while not {_tap(host) for host in HOSTS} <= {name for dummy, name in socket.if_nameindex()}:
        if time.monotonic() > end:
            raise LabError(
                f"the WAN's program doesn't start: {LOG.read_text(errors='replace').strip() or 'it says nothing'}"
            )
        time.sleep(0.02)


def on(rate: float = RATE, round_trip: float = ROUND_TRIP, firewalls: t.Mapping[str, str] | None = None) -> None:
    """Have the WAN, or have it like this.

    :param rate: Mbit/s of each host's line, each way; 0 is no limit.
    :param round_trip: milliseconds.
    :param firewalls: kinds by host, instead of :data:`FIREWALLS`.
    """
    kinds = {**FIREWALLS, **(firewalls or {})}
    settings = {
        "id": uuid.uuid4().hex,
        "bridge": _bridge(),
        "rate": rate * 1e6,
        "delay": round_trip / 2000,
        "delays": [],
        "cuts": [],
        "hosts": {host.name: {"mac": host.mac, "tap": _tap(host), "firewall": kinds[host.name]} for host in HOSTS},
    }
    if is_on():
        _change({**settings, "id": _read()["id"]})
    else:
        _write(settings)
        _start()
    plug()


def off() -> None:
    """The hosts as on one switch again."""
    there = SETTINGS.exists() or _process() is not None
    SETTINGS.unlink(missing_ok=True)
    run(["nft", "-f", "-"], stdin=f"table netdev {TABLE} {{}}\ndelete table netdev {TABLE}\n", check=False)
    number = _process()
    if number is not None:
        run(["kill", str(number)], check=False)
    end = time.monotonic() + DEADLINE
    while _process() is not None and time.monotonic() < end:
        time.sleep(0.02)
    if there:
        for line in run(["bridge", "link"], check=False).stdout.splitlines():
            if f"master {_bridge()} " in line:
                run(
                    ["bridge", "link", "set", "dev", line.split()[1].partition("@")[0].rstrip(":"), "isolated", "off"],
                    check=False,
                )
        say("the WAN is off")


def _change(settings: Settings) -> None:
    number = _process()
    if number is None or not settings:
        raise LabError("the WAN is off: lab.py wan on")
    _write(settings)
    run(["kill", "-HUP", str(number)])


def _known(names: t.Sequence[str]) -> None:
    unknown = sorted(set(names) - {host.name for host in HOSTS})
    if unknown:
        raise LabError(f"{', '.join(unknown)}: no host of the lab; there are {', '.join(host.name for host in HOSTS)}")


def cut(names: t.Sequence[str], seconds: float) -> None:
    """Cut the ways between these hosts, or all of the only one's, for some seconds from now; 0 mends them."""
    _known(names)
    pairs = (
        itertools.combinations(names, 2)
        if len(names) > 1
        else ((names[0], host.name) for host in HOSTS if host.name != names[0])
    )
    wanted = {frozenset(pair) for pair in pairs}
    settings, now = _read(), time.time()
    kept = [
        entry
        for entry in settings.get("cuts", ())
        if frozenset(entry["between"]) not in wanted and entry["until"] > now
    ]
    more = [{"between": sorted(pair), "until": now + seconds} for pair in wanted] if seconds else []
    _change({**settings, "cuts": kept + more} if settings else {})


def delay(names: t.Sequence[str], round_trip: float) -> None:
    """Another round trip, in milliseconds, between two hosts."""
    _known(names)
    settings = _read()
    kept = [entry for entry in settings.get("delays", ()) if set(entry["between"]) != set(names)]
    _change({**settings, "delays": [*kept, {"between": sorted(names), "delay": round_trip / 2000}]} if settings else {})


def reboot(name: str, grace: int = 5) -> float:
    """Start a host anew, as after `reboot` or, without grace, as after a loss of power; seconds until its SSH server
    greets."""
    _known([name])
    host = next(host for host in HOSTS if host.name == name)
    begin = time.monotonic()
    podman("restart", "--time", str(grace), host.container)
    if is_on():
        plug()
    hosts.wait_for_ssh([host])
    return time.monotonic() - begin


def _verb(args: argparse.Namespace) -> None:
    if args.action == "on":
        on(args.rate, args.round_trip, dict(part.split("=", 1) for part in args.firewall))
        kinds = ", ".join(f"{name} {host['firewall']}" for name, host in _read()["hosts"].items())
        say(f"the WAN is on: {args.rate:g} Mbit/s, {args.round_trip:g} ms; {kinds}")
    elif args.action == "off":
        off()
    elif args.action == "status":
        print(json.dumps(_read(), indent=1) if is_on() else "off")
    elif args.action == "cut":
        cut(args.hosts, args.seconds)
    elif args.action == "delay":
        delay(args.hosts, args.round_trip)


def add_verbs(verbs: t.Any) -> None:
    """What lab.py offers of this."""
    verb = verbs.add_parser(
        "wan", help="put a WAN between the hosts, or change it: on, off, status, cut HOST [HOST], delay HOST HOST"
    )
    verb.add_argument("action", choices=("on", "off", "status", "cut", "delay"))
    verb.add_argument("hosts", nargs="*")
    verb.add_argument("--rate", type=float, default=RATE, help="Mbit/s of each host's line; 0 is no limit")
    verb.add_argument("--round-trip", type=float, default=ROUND_TRIP, help="milliseconds between hosts")
    verb.add_argument(
        "--firewall",
        action="append",
        default=[],
        metavar="HOST=KIND",
        help=f"instead of {FIREWALLS}; kinds: {', '.join(KINDS)}",
    )
    verb.add_argument("--seconds", type=float, default=10, help="how long a way is cut; 0 mends it")
    verb.set_defaults(do=_verb)
    verb = verbs.add_parser("reboot", help="start a host anew")
    verb.add_argument("host")
    verb.add_argument("--grace", type=int, default=5, help="seconds that it has to shut down; 0 is a loss of power")
    verb.set_defaults(do=lambda args: say(f"{args.host} is back after {reboot(args.host, args.grace):.1f} s"))


if __name__ == "__main__":
    sys.exit("use lab.py")
