# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads who talks to whom from nftables' counters, and the state and traffic of each link from the kernel and FRR."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import apply, evpn, speaker
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import (
    FdbEntry,
    LinkEnd,
    Part,
    Session,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.matrix import Carried, Pair


class Mark(t.TypedDict, total=False):
    """Where counting begins: the time, and what each device had carried then. Empty where there was no mark."""

    time: str
    devices: t.Dict[str, Carried]


class PeerSession(Session):
    """A BGP session with a host."""

    peer: str
    address: str


class Vtep(t.TypedDict):
    """A host that a mesh floods to, by name if it is known."""

    peer: t.Optional[str]
    address: str


class LearnedMac(t.TypedDict):
    """A MAC address that BGP announced, and the address of its host."""

    mac: str
    vtep: str


class MeshState(t.TypedDict):
    """The state of a host's end of a mesh; ``state`` as that of :func:`state_of`."""

    state: str
    sessions: t.List[PeerSession]
    vteps: t.List[Vtep]
    macs: t.List[LearnedMac]


_TABLE = ("bridge", "virtuoso_traffic")
MARK_FILE = "/run/virtuoso-overlay.mark.json"


def read_matrix(text: str) -> list[Pair]:
    """The pairs in the output of ``nft -j list set``, sorted (pure)."""
    rows: list[Pair] = []
    for entry in json.loads(text or "{}").get("nftables", ()):
        for element in (entry.get("set") or {}).get("elem") or ():
            inner = element.get("elem") or {}
            pair, counter = (inner.get("val") or {}).get("concat"), inner.get("counter")
            if pair and counter:
                rows.append(
                    {
                        "source": pair[0],
                        "destination": pair[1],
                        "bytes": counter["bytes"],
                        "packets": counter["packets"],
                    }
                )
    return sorted(rows, key=lambda row: (row["source"], row["destination"]))


def matrix() -> list[Pair]:
    """What each pair of MAC addresses exchanged since the last mark, counted on the sender's host. A pair that was
    silent for an hour is forgotten."""
    return read_matrix(command(["nft", "--json", "list", "set", *_TABLE, "matrix"], accept=(0, 1)))


def _counter(device: str, name: str) -> int:
    try:
        with open(f"/sys/class/net/{device}/statistics/{name}", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0


def statistics(device: str) -> Carried:
    """What a device has carried since it was made."""
    return {
        "rx_bytes": _counter(device, "rx_bytes"),
        "tx_bytes": _counter(device, "tx_bytes"),
        "rx_packets": _counter(device, "rx_packets"),
        "tx_packets": _counter(device, "tx_packets"),
    }


def _since(device: str, mark: Mark) -> Carried:
    """What a device has carried since a mark."""
    now, before = statistics(device), mark.get("devices", {}).get(device)
    if before is None:
        return now
    return {
        "rx_bytes": max(0, now["rx_bytes"] - before["rx_bytes"]),
        "tx_bytes": max(0, now["tx_bytes"] - before["tx_bytes"]),
        "rx_packets": max(0, now["rx_packets"] - before["rx_packets"]),
        "tx_packets": max(0, now["tx_packets"] - before["tx_packets"]),
    }


def _marked() -> Mark:
    try:
        with open(MARK_FILE, encoding="ascii") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def mark(devices: t.Iterable[str], now: str) -> None:
    """Reset the counters. :param now: the time."""
    command(["nft", "flush", "set", *_TABLE, "matrix"], accept=(0, 1))
    apply.write(MARK_FILE, json.dumps({"time": now, "devices": {device: statistics(device) for device in devices}}))


def state_of(device: str) -> str:
    """The state of a device: ``up``, ``down`` (no session or no carrier) or ``absent``."""
    try:
        with open(f"/sys/class/net/{device}/carrier", encoding="ascii") as file:
            return "up" if file.read().strip() == "1" else "down"
    except OSError:
        return "down" if os.path.exists(f"/sys/class/net/{device}") else "absent"


def links(part: Part) -> list[dict[str, object]]:
    """Each link: its fields in the part without keys, its state, and what it carried since the last mark."""
    before = _marked()
    rows: list[dict[str, object]] = []
    entries = apply.fdb() if evpn.ends(part) else []
    # A stopped speaker doesn't answer; asking it would take a minute.
    sessions = speaker.sessions() if evpn.wanted(part) == "runs" else {}
    for link in part["links"]:
        shown = {key: value for key, value in link.items() if key not in ("client_key", "host_key")}
        state = state_of(link["device"])
        row: dict[str, object] = {**shown, "state": state, **_since(link["device"], before)}
        if link["transport"] == evpn.KIND:
            row.update(mesh_row(link, state, entries, sessions))
        rows.append(row)
    return rows


def mesh_row(link: LinkEnd, state: str, entries: t.Sequence[FdbEntry], spoken: t.Mapping[str, Session]) -> MeshState:
    """The state of a host's end of a mesh (pure). It is ``down`` where BGP should run and has no session.

    :param state: of its device. :param entries: of all VXLAN devices. :param spoken: the BGP sessions by address.
    """
    mine = [entry for entry in entries if entry.get("ifname") == link["device"] and entry.get("dst")]
    by_address = {peer["address"]: peer["name"] for peer in link["peers"]}
    vteps = sorted(entry["dst"] for entry in mine if entry["mac"] == evpn.ALL)
    macs: list[LearnedMac] = [{"mac": entry["mac"], "vtep": entry["dst"]} for entry in mine if entry["mac"] != evpn.ALL]
    none: Session = {"state": None, "seconds": 0}
    sessions: list[PeerSession] = [
        {"peer": peer["name"], "address": peer["address"], **(spoken.get(peer["address"]) or none)}
        for peer in link["peers"]
        if peer["speaks"]
    ]
    silent = link["role"] == "evpn" and not any(session["state"] == "Established" for session in sessions)
    return {
        "state": "down" if silent and state == "up" else state,
        "sessions": sessions,
        "vteps": [{"peer": by_address.get(address), "address": address} for address in vteps],
        "macs": sorted(macs, key=lambda row: (row["mac"], row["vtep"])),
    }


def since() -> str | None:
    """The time of the last mark; ``None`` where there was none since the host's last boot."""
    return _marked().get("time")
