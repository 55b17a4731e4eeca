# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each step of a journey is about, and what its result makes of it (pure).

A *wave* is a list of journeys that are made at the same time. A journey is a source, a target and the machines that go
from the one to the other. Each machine has a ``status``, which the steps move on: planned, prepared, sent or offered,
received, done; or undo, restore, failed.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import (
    Entry,
    Image,
    Journey,
    Machine,
    Result,
    Row,
    View,
    Wave,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.results import failed_row, key, reason

ORDER = ("prepare", "send", "receive", "settle")
"""The steps of a journey."""
END = {"prepare": "target", "send": "source", "receive": "target", "settle": "source"}
"""At which end of a journey a step is made."""

_ACTIONS = {
    "prepare": {"planned": "prepare"},
    "send": {"prepared": "send"},
    "receive": {"sent": copies.FINISH, "offered": "take", "undo": copies.DISCARD},
    "settle": {"received": copies.RELEASE, "restore": copies.RESTORE},
}
"""By step and status, what is done with a machine."""
_KEPT = ("seed", "status", "plan", "link", "row", "seen")
"""Fields of a machine that its hosts need not know. Only ``prepare`` takes the seed."""


def waves(planned: t.Sequence[Machine], per_host: int | str, per_link: int | str) -> list[Wave]:
    """Journeys in turns, so that no host and no link between two sites has too many machines under way at a time.

    The largest go first, because what is left for the end should be small. A host is the source of one journey in a
    wave.

    :param per_host: how many machines from or to a host; text as the command line gives it is a number as well.
    :param per_link: how many machines between two sites.
    """
    # Less than one would never end.
    per_host, per_link = max(1, int(per_host)), max(1, int(per_link))
    groups: dict[tuple[str, str], list[Machine]] = {}
    for move in sorted(planned, key=lambda move: (-move["size"], move["name"])):
        groups.setdefault((move["source"], move["target"]), []).append(move)
    left = sorted(groups, key=lambda pair: (-sum(move["size"] for move in groups[pair]), pair))
    found: list[Wave] = []
    while left:
        hosts: dict[str, int] = {}
        links: dict[tuple[str, ...], int] = {}
        wave: Wave = []
        for pair in list(left):
            link = tuple(groups[pair][0]["link"])
            source, target = pair
            lanes = min(
                len(groups[pair]),
                per_host - hosts.get(source, 0),
                per_host - hosts.get(target, 0),
                per_link - links.get(link, 0),
            )
            if lanes < 1 or any(journey["source"] == source for journey in wave):
                continue
            for host in pair:
                hosts[host] = hosts.get(host, 0) + lanes
            links[link] = links.get(link, 0) + lanes
            wave.append(_journey(source, target, lanes, groups[pair]))
            left.remove(pair)
        found.append(wave)
    return found


def _journey(source: str, target: str, parallel: int, machines: list[Machine]) -> Journey:
    images: dict[str, Image] = {
        machine["image"]["digest"]: {"name": machine["image"]["name"], "digest": machine["image"]["digest"]}
        for machine in machines
        if machine["missing"]
    }
    networks = {
        str(network)
        for machine in machines
        for network in (machine.get("network"), *(machine.get("extra_networks") or ()))
        if network
    }
    return {
        "source": source,
        "target": target,
        "parallel": parallel,
        "postcopy": machines[0]["postcopy"],
        "images": list(images.values()),
        "networks": sorted(networks),
        "machines": machines,
    }


def entries(journey: Journey, step: str) -> list[Entry]:
    """The machines of a journey that a step is about, as the module takes them."""
    found: list[Entry] = []
    for machine in journey["machines"]:
        action = _ACTIONS[step].get(machine["status"])
        # A live move has removed the source's copy when it was sent.
        if action is None or (action == copies.RELEASE and machine["mode"] == choice.LIVE):
            continue
        entry = {
            name: value
            for name, value in machine.items()
            if name not in _KEPT or (name == "seed" and step == "prepare")
        }
        running = machine["was"] in ("running", "paused", "hibernated")
        entry.update(action=action, start=machine["mode"] == choice.HIBERNATED and running)
        found.append(t.cast(Entry, entry))
    return found


def leaves_live(journey: Journey) -> bool:
    """Whether the step ``send`` will need the target's libvirt."""
    machines = journey["machines"]
    return any(each["mode"] == choice.LIVE and each["status"] in ("planned", "prepared") for each in machines)


def without_image(journey: Journey, transfer: Result | None) -> Journey:
    """The journey, in which machines whose image could not be brought have failed.

    :param transfer: the result of the module ``image_transfer``; ``None`` where nothing was to be brought.
    """
    if transfer is None:
        return journey
    rows = transfer.get("images") or []
    by_digest = {row["digest"]: row for row in rows if row.get("digest")}
    by_name = {row["name"]: row for row in rows}
    machines: list[Machine] = []
    for machine in journey["machines"]:
        row = by_digest.get(machine["image"]["digest"]) or by_name.get(machine["image"]["name"])
        if not machine["missing"] or (row is not None and not row.get("failed")):
            machines.append(machine)
            continue
        cause = row or transfer
        failure = cause.get("failure") or {"code": "image_missing"}
        error = GridError(
            failure["code"],
            str(cause.get("msg") or "its image didn't come"),
            remedy=failure.get("remedy") or "Run again",
        )
        machines.append({**machine, "status": "failed", "row": failed_row(machine, error, journey["target"])})
    return {**journey, "machines": machines}


def advance(journey: Journey, step: str, result: Result) -> Journey:
    """The journey after a step."""
    actions = {entry["uuid"]: entry["action"] for entry in entries(journey, step)}
    rows = {row["uuid"]: row for row in result.get("machines") or ()}
    host = journey["source"] if END[step] == "source" else journey["target"]
    machines: list[Machine] = []
    for machine in journey["machines"]:
        action, row = actions.get(machine["uuid"]), rows.get(machine["uuid"])
        if action is None:
            machines.append(machine)
        elif row is None:
            # What may have been touched is left to the next run, which looks first.
            lost = {**(machine.get("row") or {}), **_lost(machine, result, host)}
            machines.append({**machine, "status": "failed", "row": t.cast(Row, lost)})
        elif row.get("failed"):
            machines.append(_failed(machine, step, action, row))
        else:
            machines.append(_succeeded(machine, step, action, row))
    return {**journey, "machines": machines}


def _lost(machine: Machine, result: Result, host: str) -> Row:
    """A row where the step as a whole failed."""
    code, said = reason(result)
    first = "See that the host is up" if code == "host_unreachable" else "Mend what is wrong there"
    again = f"{first}, then run again: that finds the one true copy, and finishes the move or undoes it"
    remedy = (result.get("failure") or {}).get("remedy") or again
    return failed_row(machine, GridError(code, said, remedy=remedy), host)


def _failed(machine: Machine, step: str, action: str, row: View) -> Machine:
    """A machine of which a step failed."""
    told = t.cast(Row, {**row, "name": machine["name"], "provider": machine["source"]})
    where = row["failure"].get("copy", "unknown")
    if step == "send":
        undo = machine["mode"] == choice.LIVE and where in ("source", "unknown")
        return {**machine, "status": "undo" if undo else "failed", "row": told}
    if action == copies.DISCARD:
        # Why it didn't leave stays what is told.
        why = machine.get("row") or told
        said = f"{why['msg']}; and what came of it wasn't thrown away: {row['msg']}"
        return {**machine, "status": "failed", "row": {**why, "msg": said}}
    if action == "take" and where == "source":
        return {**machine, "status": "restore", "row": told}
    if step == "settle":
        told["provider"] = machine["target"]
    return {**machine, "status": "failed", "row": told}


def _succeeded(machine: Machine, step: str, action: str, row: View) -> Machine:
    """A machine of which a step succeeded."""
    if step == "prepare":
        return {**machine, "status": "prepared"}
    if step == "send":
        told = {name: value for name, value in row.items() if name in ("files", "port", "autostart", "stats")}
        status = "sent" if machine["mode"] == choice.LIVE else "offered"
        return t.cast(Machine, {**machine, **told, "status": status})
    if action == copies.DISCARD:
        return {**machine, "status": "failed"}
    if action == copies.RESTORE:
        return {**machine, "status": "failed", "seen": {**row["facts"], "provider": machine["source"]}}
    if action == copies.RELEASE:
        return {**machine, "status": "done"}
    facts = row["facts"]
    done: Row = {
        "name": machine["name"],
        "uuid": machine["uuid"],
        "changed": True,
        "provider": machine["target"],
        "state": facts["state"],
        "actions": [f"migrate {machine['mode']}"],
        "mode": machine["mode"],
        "stats": machine.get("stats"),
    }
    return {**machine, "status": "received", "row": done, "seen": {**facts, "provider": machine["target"]}}


def foretold(journey: Journey) -> Journey:
    """The journey after ``prepare`` in check mode: its machines' rows say what would be done."""
    machines: list[Machine] = []
    for machine in journey["machines"]:
        if machine["status"] != "failed":
            row: Row = {
                "name": machine["name"],
                "uuid": machine["uuid"],
                "plan": machine["plan"],
                "mode": machine["mode"],
                "changed": True,
                "provider": machine["target"],
                "state": machine["was"],
                "actions": [*(["bring image"] if machine["missing"] else []), f"migrate {machine['mode']}"],
            }
            machine = {**machine, "row": row}
        machines.append(machine)
    return {**journey, "machines": machines}


def arrived(wave: Wave, results: t.Mapping[str, Result]) -> Wave:
    """The wave after the step ``move``. :param results: by journey; each has the machines as they came out."""
    after: Wave = []
    for journey in wave:
        result: Result = results.get(key(journey)) or {}
        if isinstance(result.get("machines"), list):
            after.append({**journey, "machines": t.cast("list[Machine]", result["machines"])})
            continue
        machines: list[Machine] = [
            machine
            if machine.get("row")
            else {**machine, "status": "failed", "row": _lost(machine, result, journey["source"])}
            for machine in journey["machines"]
        ]
        after.append({**journey, "machines": machines})
    return after
