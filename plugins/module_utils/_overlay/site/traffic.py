# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who talks to whom, by nftables' counters, and what each link carries, by the kernel's."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import apply, evpn, speaker

Row = t.Dict[str, t.Any]

_TABLE = ("bridge", "virtuoso_traffic")
_STATISTICS = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
MARK_FILE = "/run/virtuoso-overlay.mark.json"


def read_matrix(text: str) -> list[Row]:
    """Rows ``source destination bytes packets`` from what ``nft -j list set`` says (pure)."""
    rows = []
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


def matrix() -> list[Row]:
    """Bytes and packets of each pair of MAC addresses, as counted at the machine that sent them, since the last mark;
    pairs that were silent for an hour are forgotten."""
    return read_matrix(command(["nft", "--json", "list", "set", *_TABLE, "matrix"], accept=(0, 1)))


def statistics(device: str) -> Row:
    """What a link's device carried."""
    found = {}
    for name in _STATISTICS:
        try:
            with open(f"/sys/class/net/{device}/statistics/{name}", encoding="ascii") as file:
                found[name] = int(file.read())
        except OSError:
            found[name] = 0
    return found


def _marked() -> Row:
    try:
        with open(MARK_FILE, encoding="ascii") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def mark(devices: t.Iterable[str], now: str) -> None:
    """From now on only what comes counts."""
    command(["nft", "flush", "set", *_TABLE, "matrix"], accept=(0, 1))
    apply.write(MARK_FILE, json.dumps({"time": now, "devices": {device: statistics(device) for device in devices}}))


def state_of(device: str) -> str:
    """``up``, ``down`` (no session, no carrier) or ``absent``."""
    try:
        with open(f"/sys/class/net/{device}/carrier", encoding="ascii") as file:
            return "up" if file.read().strip() == "1" else "down"
    except OSError:
        return "down" if os.path.exists(f"/sys/class/net/{device}") else "absent"


def links(part: apply.Part) -> list[Row]:
    """Each link as it is: its part's words, state, and what it carried since the last mark."""
    before = _marked().get("devices", {})
    rows = []
    told = apply.fdb() if evpn.ends(part) else []
    # One that was silenced would keep who asks it waiting for a minute.
    spoken = speaker.sessions() if evpn.wanted(part) == "runs" else {}
    for link in part["links"]:
        since = before.get(link["device"], {})
        carried = {name: max(0, value - since.get(name, 0)) for name, value in statistics(link["device"]).items()}
        shown = {key: value for key, value in link.items() if key not in ("client_key", "host_key")}
        state = {"state": state_of(link["device"])}
        if link["transport"] == evpn.KIND:
            state.update(mesh_row(link, state["state"], told, spoken))
        rows.append({**shown, **state, **carried})
    return rows


def mesh_row(link: Row, state: str, entries: t.Sequence[Row], spoken: t.Mapping[str, Row]) -> Row:
    """How a host's end of a mesh is (pure): its sessions, the hosts that it floods to, and the MAC addresses that BGP
    told of.

    ``down`` where BGP is to be spoken and no session is there.
    :param entries: of all VXLAN devices.
    :param spoken: the sessions by address.
    """
    mine = [entry for entry in entries if entry.get("ifname") == link["device"] and entry.get("dst")]
    by_address = {peer["address"]: peer["name"] for peer in link["peers"]}
    vteps = sorted(entry["dst"] for entry in mine if entry["mac"] == evpn.ALL)
    macs = [{"mac": entry["mac"], "vtep": entry["dst"]} for entry in mine if entry["mac"] != evpn.ALL]
    told = [
        {
            "peer": peer["name"],
            "address": peer["address"],
            **(spoken.get(peer["address"]) or {"state": None, "seconds": 0}),
        }
        for peer in link["peers"]
        if peer["speaks"]
    ]
    silent = link["role"] == "evpn" and not any(session["state"] == "Established" for session in told)
    return {
        "state": "down" if silent and state == "up" else state,
        "sessions": told,
        "vteps": [{"peer": by_address.get(address), "address": address} for address in vteps],
        "macs": sorted(macs, key=lambda row: (row["mac"], row["vtep"])),
    }


def since() -> str | None:
    """When the last mark was."""
    return _marked().get("time")
