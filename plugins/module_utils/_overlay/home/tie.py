# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ties a network to a home's LAN: a program of its own, installed by the role ``home``, started by systemd at every
boot.

``tie.py up FILE``, ``tie.py down FILE``, and ``tie.py check FILE``, which ends with 2 where something is missing; all
can be run again. The file is as the role writes it: ``{network, bridge, make, ports, addresses, overlay, ends}``.
``overlay`` is the network's own bridge; a cable of two ``ends`` joins it with the LAN's ``bridge``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import typing as t

Settings = t.Dict[str, t.Any]

MARK = "virtuoso-home"
"""The alias of what this program has made: nothing else is ever removed."""

GROUP = str(0x76000001)
"""By which the overlay's rules know the port at once, as they know machines'."""
PATIENCE = 30


class TieError(Exception):
    """It can't be done; the text says why and what to do."""


def ip(*words: str, check: bool = True) -> str:
    """Run ip."""
    done = subprocess.run(
        ["/usr/sbin/ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        raise TieError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout if not done.returncode else ""


def link(name: str) -> t.Dict[str, t.Any] | None:
    """What the kernel has of this name."""
    text = ip("-j", "-d", "link", "show", "dev", name, check=False)
    return json.loads(text)[0] if text.strip() else None


def is_bridge(entry: t.Mapping[str, t.Any]) -> bool:
    """Whether it is a bridge."""
    return entry.get("linkinfo", {}).get("info_kind") == "bridge"


def make_bridge(settings: Settings) -> None:
    """The LAN's bridge: made, or there."""
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
    """The cable between the network's own bridge and the LAN's."""
    near, far = settings["ends"]
    end = time.monotonic() + PATIENCE
    while link(settings["overlay"]) is None:
        if time.monotonic() > end:
            raise TieError(
                f"the bridge {settings['overlay']} of the network {settings['network']} did not come in {PATIENCE} s: run virtuoso.grid.overlay"
            )
        time.sleep(0.1)
    mtu = link(settings["overlay"])["mtu"]
    # A bridge takes the least MTU of its ports: one that is somebody else's keeps its own, and drops only what is too
    # large for the network.
    far_mtu = mtu if settings["make"] else link(settings["bridge"])["mtu"]
    if link(near) is None:
        ip("link", "add", "name", near, "type", "veth", "peer", "name", far)
    for name, bridge, size in ((near, settings["overlay"], mtu), (far, settings["bridge"], far_mtu)):
        ip("link", "set", "dev", name, "alias", MARK, "mtu", str(size))
        ip("link", "set", "dev", name, "master", bridge, "up")
    ip("link", "set", "dev", near, "group", GROUP)


def up(settings: Settings) -> None:
    """Tie."""
    make_bridge(settings)
    if settings["overlay"] != settings["bridge"]:
        make_cable(settings)


def tied(settings: Settings) -> bool:
    """Whether all is there: the network's own bridge may have been made anew."""
    bridge = link(settings["bridge"])
    if bridge is None or settings["make"] and bridge.get("ifalias") != MARK:
        return False
    if settings["overlay"] == settings["bridge"]:
        return True
    ends = {end: link(end) for end in settings["ends"]}
    return [(entry or {}).get("master") for entry in ends.values()] == [settings["overlay"], settings["bridge"]]


def down(settings: Settings) -> None:
    """Untie; the LAN's bridge goes only if it was made here."""
    for name in (settings["ends"][0], settings["bridge"]):
        there = link(name)
        if there is not None and there.get("ifalias") == MARK:
            ip("link", "delete", "dev", name)


def main(arguments: t.Sequence[str]) -> int:
    """Do one of both."""
    verb, path = arguments
    with open(path, encoding="utf-8") as file:
        settings = json.load(file)
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
