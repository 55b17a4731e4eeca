# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each step of a move is about, and what its results make of it (pure).

A *wave* is a list of journeys that are made at the same time. A journey is a source, a target and the machines that go
from the one to the other; each machine has a ``status``, which a step's results move on: planned, prepared, sent or
offered, received; or undo, restore, failed.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.plan import failed_row, reason

Item = t.Dict[str, t.Any]
Items = t.List[Item]
View = t.Mapping[str, t.Any]

ORDER = ("prepare", "send", "receive", "settle")
END = {"prepare": "target", "send": "source", "receive": "target", "settle": "source"}
"""At which end of a journey a step is made."""


def waves(planned: t.Sequence[View], per_host: int | str, per_link: int | str) -> list[Items]:
    """Journeys in turns, so that no host and no link between two sites has more than so many machines under way at a
    time.

    The largest go first, because what is left for the end should be small. A host is the source of one journey in a
    wave.
    """
    # As text from the command line; and less than one would never end.
    per_host, per_link = max(1, int(per_host)), max(1, int(per_link))
    groups: dict[tuple[str, str], Items] = {}
    for move in sorted(planned, key=lambda move: (-move["size"], move["name"])):
        groups.setdefault((move["source"], move["target"]), []).append(dict(move))
    left = sorted(groups, key=lambda pair: (-sum(move["size"] for move in groups[pair]), pair))
    found: list[Items] = []
    while left:
        hosts: dict[str, int] = {}
        links: dict[t.Any, int] = {}
        wave: Items = []
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
            wave.append(
                {
                    "source": source,
                    "target": target,
                    "parallel": lanes,
                    "postcopy": groups[pair][0]["postcopy"],
                    "machines": groups[pair],
                }
            )
            left.remove(pair)
        found.append(wave)
    return found


def entries(journey: View, step: str) -> Items:
    """The machines of a journey that a step is about, as the module ``machine_migrate`` takes them."""
    wanted = {
        "prepare": {"planned": "prepare"},
        "send": {"prepared": "send"},
        "receive": {"sent": copies.FINISH, "offered": "take", "undo": copies.DISCARD},
        "settle": {"received": copies.RELEASE, "restore": copies.RESTORE},
    }[step]
    found = []
    for machine in journey["machines"]:
        action = wanted.get(machine["status"])
        if action is None or (step == "settle" and machine["mode"] == choice.LIVE and action == copies.RELEASE):
            continue
        entry = {
            key: value
            for key, value in machine.items()
            if key not in ("seed", "status", "plan", "link", "row") or (key == "seed" and step == "prepare")
        }
        running = machine["was"] in ("running", "paused", "hibernated")
        found.append({**entry, "action": action, "start": machine["mode"] == choice.HIBERNATED and running})
    return found


def involved(wave: t.Sequence[View], step: str, mine: t.Sequence[str]) -> Items:
    """The journeys of a wave in which a step has something to do on one of these hosts. The source drives the step
    ``move``, which is all of them."""
    if step == "move":
        return [
            dict(journey)
            for journey in wave
            if journey["source"] in mine and any(entries(journey, each) for each in ORDER)
        ]
    return [dict(journey) for journey in wave if journey[END[step]] in mine and entries(journey, step)]


def leaves_live(journey: View) -> bool:
    """Whether the source is to drive the target's libvirt."""
    return any(
        machine["mode"] == choice.LIVE and machine["status"] in ("planned", "prepared")
        for machine in journey["machines"]
    )


def following(journey: View, step: str) -> str | None:
    """The step that comes after a step if all goes well; a live move is over when it was received."""
    if step == "receive" and all(machine["mode"] == choice.LIVE for machine in journey["machines"]):
        return None
    return dict(zip(ORDER, ORDER[1:])).get(step)


def arrived(wave: t.Sequence[View], results: t.Mapping[str, View]) -> Items:
    """The wave after the step ``move``. :param results: of :func:`by_host`; each has the journey as it came out."""
    after: Items = []
    for journey in wave:
        result = results.get(f"{journey['source']}>{journey['target']}")
        if result is not None and isinstance(result.get("machines"), list):
            after.append({**journey, "machines": result["machines"]})
        elif any(entries(journey, each) for each in ORDER):
            machines = [
                {**machine, "status": "failed", "row": _lost(machine, result or {}, journey["source"])}
                if not machine.get("row")
                else dict(machine)
                for machine in journey["machines"]
            ]
            after.append({**journey, "machines": machines})
        else:
            after.append(dict(journey))
    return after


def advance(wave: t.Sequence[View], step: str, results: t.Mapping[str, View]) -> Items:
    """The wave after a step. :param results: of :func:`by_host`."""
    after: Items = []
    for journey in wave:
        asked = {entry["uuid"]: entry["action"] for entry in entries(journey, step)}
        result = results.get(f"{journey['source']}>{journey['target']}", {})
        rows = {row["uuid"]: row for row in result.get("machines") or ()}
        host = journey[END[step]]
        machines = [
            _advanced(machine, step, asked[machine["uuid"]], rows.get(machine["uuid"]), result, host)
            if machine["uuid"] in asked
            else dict(machine)
            for machine in journey["machines"]
        ]
        after.append({**journey, "machines": machines})
    return after


def _lost(machine: View, result: View, host: str) -> Item:
    """A row where the step as a whole failed."""
    failure = result.get("failure") or {}
    code, said = reason(result)
    first = "See that the host is up" if code == "host_unreachable" else "Mend what is wrong there"
    error = GridError(
        code,
        said,
        remedy=failure.get("remedy")
        or f"{first}, then run again: that finds the one true copy, and finishes the move or undoes it",
    )
    return failed_row(machine, error, host)


def _advanced(machine: View, step: str, action: str, row: View | None, result: View, host: str) -> Item:
    if row is None:
        # Nothing went wrong where nothing was touched; what may have been is left to the next run, which looks first.
        return {**machine, "status": "failed", "row": {**(machine.get("row") or {}), **_lost(machine, result, host)}}
    if row.get("failed"):
        told = {**row, "name": machine["name"], "provider": machine["source"]}
        if step == "send":
            undo = machine["mode"] == choice.LIVE and (
                row["failure"].get("copy") == "source" or row["failure"].get("copy", "?") == "?"
            )
            return {**machine, "status": "undo" if undo else "failed", "row": told}
        if step == "receive" and action == copies.DISCARD:
            # Why it didn't leave stays what is told.
            why = dict(machine.get("row") or told)
            return {
                **machine,
                "status": "failed",
                "row": {**why, "msg": f"{why['msg']}; and what came of it wasn't thrown away: {row['msg']}"},
            }
        if step == "receive" and action == "take" and row["failure"].get("copy") == "source":
            return {**machine, "status": "restore", "row": told}
        return {
            **machine,
            "status": "failed",
            "row": {**told, **({"provider": machine["target"]} if step == "settle" else {})},
        }
    if step == "prepare":
        return {**machine, "status": "prepared"}
    if step == "send":
        told = {key: row[key] for key in ("files", "port", "autostart", "stats") if key in row}
        return {**machine, **told, "status": "sent" if machine["mode"] == choice.LIVE else "offered"}
    if action == copies.DISCARD:
        return {**machine, "status": "failed"}
    if action == copies.RESTORE:
        return {**machine, "status": "failed", "seen": {**row["facts"], "provider": machine["source"]}}
    if action == copies.RELEASE:
        return {**machine, "status": "done"}
    facts = row["facts"]
    done = {
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


def outcome(wave: t.Sequence[View]) -> dict[str, Items]:
    """What is to be told of a wave that is over: ``rows`` for the report, ``seen`` for the store, with ``recorded``
    where it knows already."""
    machines = [machine for journey in wave for machine in journey["machines"]]
    return {
        "rows": [dict(machine["row"]) for machine in machines if machine.get("row")],
        "seen": [
            {**machine["seen"], **({"recorded": True} if machine.get("recorded") else {})}
            for machine in machines
            if machine.get("seen")
        ],
    }


def foretold(wave: t.Sequence[View]) -> Items:
    """What check mode tells of a wave after the step prepare."""
    rows = []
    for machine in (machine for journey in wave for machine in journey["machines"]):
        if machine["status"] == "failed":
            rows.append(dict(machine["row"]))
        else:
            actions = [*(["bring image"] if machine["missing"] else []), f"migrate {machine['mode']}"]
            row = {key: machine[key] for key in ("name", "uuid", "plan", "mode")}
            rows.append(
                {**row, "changed": True, "provider": machine["target"], "state": machine["was"], "actions": actions}
            )
    return rows


def images(wave: t.Sequence[View], mine: t.Sequence[str]) -> Items:
    """The images that targets lack: ``source``, ``target`` and ``images`` for the module ``image_transfer``."""
    found: Items = []
    for journey in wave:
        wanted = {
            machine["image"]["digest"]: {"name": machine["image"]["name"], "digest": machine["image"]["digest"]}
            for machine in journey["machines"]
            if machine["missing"] and machine["status"] == "planned"
        }
        if wanted and journey["target"] in mine:
            found.append({"source": journey["source"], "target": journey["target"], "images": list(wanted.values())})
    return found


def without_image(wave: t.Sequence[View], transfers: t.Mapping[str, View]) -> Items:
    """The wave without the machines whose image couldn't be brought."""
    after: Items = []
    for journey in wave:
        result = transfers.get(f"{journey['source']}>{journey['target']}")
        rows = {row.get("digest") or row["name"]: row for row in (result or {}).get("images") or ()}
        named = {row["name"]: row for row in (result or {}).get("images") or ()}
        machines: Items = []
        for machine in journey["machines"]:
            row = rows.get(machine["image"]["digest"]) or named.get(machine["image"]["name"])
            bad = result is not None and machine["missing"] and (row is None or row.get("failed"))
            if not bad:
                machines.append(dict(machine))
                continue
            cause = row or result or {}
            failure = cause.get("failure") or {"code": "image_missing"}
            error = GridError(
                failure["code"],
                str(cause.get("msg") or "its image didn't come"),
                remedy=failure.get("remedy") or "Run again",
            )
            machines.append({**machine, "status": "failed", "row": failed_row(machine, error, journey["target"])})
        after.append({**journey, "machines": machines})
    return after
