# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program on a home's host that connects a network's bridge to the home's LAN.

The role ``home`` installs it, and systemd runs it at every boot: ``tie.py up FILE``, ``tie.py down FILE``, or
``tie.py check FILE``, which ends with 2 where something is missing. All can be repeated. The file is JSON, see
:class:`Settings`. Standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import typing as t


class Settings(t.TypedDict):
    """How a network is connected to the LAN.

    ``bridge``: that of the LAN; with ``make`` this program makes it, with ``ports`` and ``addresses``. ``overlay``: the
    network's own bridge. ``ends``: the two ends of a cable (veth) that joins it with the LAN's.
    """

    network: str
    bridge: str
    make: bool
    ports: t.List[str]
    addresses: t.List[str]
    overlay: str
    ends: t.List[str]


MARK = "virtuoso-home"
"""The alias of all interfaces that this program has made; it removes no others."""

GROUP = str(0x76000001)
"""The interface group by which the overlay's rules recognise the port, as they do machines' ports."""
PATIENCE = 30
"""Seconds to wait for the network's own bridge."""


class TieError(Exception):
    """A failure; the text says why and what to do."""


class LinkInfo(t.TypedDict, total=False):
    """What the kernel says about an interface's kind."""

    info_kind: str


class Interface(t.TypedDict, total=False):
    """An interface, as ``ip -json`` shows it."""

    ifalias: str
    linkinfo: LinkInfo
    master: str
    mtu: int


def ip(*words: str, check: bool = True) -> str:
    """Run ip; its output. :raises TieError: where it fails; without ``check`` the output is empty then."""
    done = subprocess.run(
        ["/usr/sbin/ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        raise TieError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout if not done.returncode else ""


def link(name: str) -> Interface | None:
    """The interface of this name, if there is one."""
    text = ip("-j", "-d", "link", "show", "dev", name, check=False)
    return json.loads(text)[0] if text.strip() else None


def is_bridge(entry: Interface) -> bool:
    """Whether the interface is a bridge."""
    return entry.get("linkinfo", {}).get("info_kind") == "bridge"


def make_bridge(settings: Settings) -> None:
    """Make the LAN's bridge, or check the one that is there. :raises TieError: where it can't be used."""
    name = settings["bridge"]
    there = link(name)
    if there is None and settings["make"]:
        ip("link", "add", "name", name, "type", "bridge", "forward_delay", "0")
        ip("link", "set", "dev", name, "alias", MARK)
        there = link(name)
    if there is None:
        raise TieError(f"there is no bridge {name}: make it, or say make: true in virtuoso_home_networks")
    if not is_bridge(there):
        raise TieError(f"{name} is there and is no bridge: name another one")
    if settings["make"] and there.get("ifalias") != MARK:
        raise TieError(
            f"the bridge {name} is somebody else's: leave out make: true to use it as it is, or name another one"
        )
    if settings["make"]:
        ip("link", "set", "dev", name, "up")
        for port in settings["ports"]:
            ip("link", "set", "dev", port, "master", name, "up")
        for address in settings["addresses"]:
            ip("address", "replace", address, "dev", name)


def make_cable(settings: Settings) -> None:
    """Make the cable between the network's own bridge and the LAN's. :raises TieError: where a bridge is missing."""
    near, far = settings["ends"]
    mtu = _wait_for_bridge(settings)["mtu"]
    # A bridge takes the lowest MTU of its ports. A bridge of others keeps its MTU, and frames that are too large for
    # the network are dropped.
    far_mtu = mtu
    if not settings["make"]:
        lan = link(settings["bridge"])
        if lan is None:
            raise TieError(f"the bridge {settings['bridge']} is gone: make it, and run the same again")
        far_mtu = lan["mtu"]
    if link(near) is None:
        ip("link", "add", "name", near, "type", "veth", "peer", "name", far)
    for name, bridge, size in ((near, settings["overlay"], mtu), (far, settings["bridge"], far_mtu)):
        ip("link", "set", "dev", name, "alias", MARK, "mtu", str(size))
        ip("link", "set", "dev", name, "master", bridge, "up")
    ip("link", "set", "dev", near, "group", GROUP)


def _wait_for_bridge(settings: Settings) -> Interface:
    """The network's own bridge. :raises TieError: where it doesn't come in time."""
    end = time.monotonic() + PATIENCE
    while True:
        bridge = link(settings["overlay"])
        if bridge is not None:
            return bridge
        if time.monotonic() > end:
            raise TieError(
                f"the bridge {settings['overlay']} of the network {settings['network']} did not come in {PATIENCE} s: "
                "run virtuoso.grid.overlay"
            )
        time.sleep(0.1)


def up(settings: Settings) -> None:
    """Connect the network to the LAN."""
    make_bridge(settings)
    if settings["overlay"] != settings["bridge"]:
        make_cable(settings)


def tied(settings: Settings) -> bool:
    """Whether everything is there. The network's own bridge may have been remade, which removes the cable from it."""
    bridge = link(settings["bridge"])
    if bridge is None or settings["make"] and bridge.get("ifalias") != MARK:
        return False
    if settings["overlay"] == settings["bridge"]:
        return True
    ends = {end: link(end) for end in settings["ends"]}
    return [(entry or {}).get("master") for entry in ends.values()] == [settings["overlay"], settings["bridge"]]


def down(settings: Settings) -> None:
    """Disconnect the network; the LAN's bridge is removed only if this program made it."""
    for name in (settings["ends"][0], settings["bridge"]):
        there = link(name)
        if there is not None and there.get("ifalias") == MARK:
            ip("link", "delete", "dev", name)


def main(arguments: t.Sequence[str]) -> int:
    """Run ``up``, ``down`` or ``check``; the exit code."""
    verb, path = arguments
    with open(path, encoding="utf-8") as file:
        settings: Settings = json.load(file)
    try:
        if verb == "check":
            return 0 if tied(settings) else 2
        (up if verb == "up" else down)(settings)
    except TieError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
