# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processors take what links bring: all, where the network card has one queue (receive packet steering).

Without it the processor that is interrupted does all there is to a frame, from the card to the guest, and the others wait. A card with several queues
spreads flows itself, and is left to it. See Documentation/networking/scaling.rst of the kernel, "RPS: Receive Packet Steering".
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.interfaces import Part

DEVICES = "/sys/class/net"
ONLINE = "/sys/devices/system/cpu/online"
_SET = "queues/rx-0/rps_cpus"


def mask(online: str) -> str:
    """A list of processors, as ``0-3,6``, in the form of a set of them: groups of 32, the highest first."""
    bits = 0
    for part in online.split(","):
        first, dummy, last = part.partition("-")
        bits |= sum(1 << number for number in range(int(first), int(last or first) + 1))
    groups = []
    while bits:
        groups.append(f"{bits & 0xFFFFFFFF:08x}")
        bits >>= 32
    return ",".join(reversed(groups))


def wanted(part: Part, queues: t.Mapping[str, int]) -> t.List[str]:
    """The devices of links of which all processors are to take what they bring.

    :param queues: how many receive queues the card has that leads to a peer, by its address. What comes through a tap or WireGuard comes by one.
    """
    least = min(queues.values(), default=0)
    return [
        link["device"]
        for link in part["links"]
        if link["transport"] == "ssh" or link.get("inner") or queues.get(str(link.get("remote")), least) == 1
    ]


def peers(part: Part) -> t.List[str]:
    """The addresses of which the way is to be asked for."""
    found = []
    for address in part["peers"]:
        with contextlib.suppress(ValueError):
            found.append(str(ipaddress.ip_address(address)))
    return sorted(found)


def cards(addresses: t.Sequence[str], told: str) -> t.Dict[str, str]:
    """The device that leads to each address. :param told: what ``ip -json -batch`` says of ``route get`` for each, a list after the other."""
    decoder, rows, place = json.JSONDecoder(), [], 0
    while told[place:].strip():
        place += len(told[place:]) - len(told[place:].lstrip())
        row, place = decoder.raw_decode(told, place)
        rows += row
    return {row["dst"]: row["dev"] for row in rows if row.get("dst") in addresses and row.get("dev")}


def queues_of(device: str, root: str = DEVICES) -> int:
    """The receive queues of a device; 0 where it isn't known."""
    with contextlib.suppress(OSError):
        return sum(name.startswith("rx-") for name in os.listdir(f"{root}/{device}/queues"))
    return 0


def processors() -> str | None:
    """All that are there; ``None`` where there is one, or nobody tells."""
    with contextlib.suppress(OSError, ValueError), open(ONLINE, encoding="ascii") as file:
        found = mask(file.read().strip())
        return found if sum(bin(int(group, 16)).count("1") for group in found.split(",")) > 1 else None
    return None


def unset(device: str, root: str = DEVICES) -> bool:
    """Whether nobody has said which are to take it, and it can be said. What an administrator has said stays."""
    path = f"{root}/{device}/{_SET}"
    if not os.access(path, os.W_OK):
        return False
    with open(path, encoding="ascii") as file:
        return not file.read().strip().strip("0,")


def steer(devices: t.Iterable[str], to: str, root: str = DEVICES) -> None:
    """Set them. A host that doesn't let us is slower, and nothing else."""
    for device in devices:
        with contextlib.suppress(OSError), open(f"{root}/{device}/{_SET}", "w", encoding="ascii") as file:
            file.write(to)
