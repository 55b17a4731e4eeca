# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done for machines that are to move (pure): who goes where, which copy is the true one, who can go."""

from __future__ import annotations

import dataclasses
import typing as t
import uuid

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import (
    Chosen,
    Host,
    Known,
    Looked,
    Machine,
    Move,
    Placement,
    Plan,
    Question,
    Result,
    Row,
    Settle,
    Settled,
    SettleEntry,
    View,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.results import (
    explain_silence,
    failed_hosts,
    failed_row,
    reason,
)

_CARRIED = (
    "name",
    "uuid",
    "disk",
    "layers",
    "memory",
    "machine_type",
    "virtualization",
    "network",
    "mac",
    "extra_networks",
    "lease",
    "disk_used",
    "memory_file",
    "tied",
    "pages",
    "snapshots",
    "state",
    "seed",
    "cpu",
)
"""What the target needs to know of a machine, of what the source's look returned."""


class Order(t.TypedDict, total=False):
    """A machine as the module ``order_info`` returns it."""

    name: str
    uuid: str
    owner: t.Optional[str]
    provider: t.Optional[str]
    state: str
    generation: t.Optional[int]
    spec: t.Mapping[str, object]
    image: t.Dict[str, object]


@dataclasses.dataclass(frozen=True)
class Options:
    """What holds for all machines of a play."""

    mode: str = "auto"
    dead: t.Sequence[str] = ()
    """hosts of which a person says that they are dead"""
    sites: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """by provider"""
    speeds: t.Mapping[str, float] = dataclasses.field(default_factory=dict)
    """bytes a second, by "source>target\""""
    reserve: int = 0
    """bytes of memory that a provider keeps for itself"""


def moves(selected: t.Sequence[Order], to: t.Mapping[str, str] | str | None, providers: t.Sequence[str]) -> Chosen:
    """Who is to go where.

    :param to: a provider's name, providers by the names of machines, or nothing to have one chosen.
    """
    found: list[Move] = []
    failed: list[Row] = []
    for machine in selected:
        target = to.get(machine["name"]) if isinstance(to, t.Mapping) else to or None
        error = _no_way(machine, target, providers)
        if error:
            failed.append(failed_row(t.cast(Move, machine), error))
            continue
        source = t.cast(str, machine["provider"])
        move = {
            **{key: machine.get(key) for key in ("name", "uuid", "generation", "owner")},
            "source": source,
            "target": target,
            "known": {"provider": source, "generation": machine.get("generation")},
            "question": {"name": machine["name"], "uuid": machine["uuid"], "source": source},
            "spec": machine.get("spec") or {},
            "image": machine.get("image"),
        }
        found.append(t.cast(Move, move))
    return {"moves": found, "failed": failed}


def _no_way(machine: Order, target: str | None, providers: t.Sequence[str]) -> GridError | None:
    """Why a machine can't move at all."""
    if not machine.get("provider") or machine.get("state") in ("future", "placed"):
        return GridError("machine_unknown", "the machine doesn't exist yet", remedy="Deploy it: virtuoso.grid.deploy")
    if target is not None and target not in providers:
        return GridError(
            "no_such_provider",
            f"there is no provider {target}",
            remedy=f"Give one of {', '.join(sorted(providers))}; or none, to have one chosen",
        )
    if target is None and not any(name != machine["provider"] for name in providers):
        return GridError(
            "no_provider",
            "there is no other provider",
            remedy="Add one to the inventory's group providers, and run virtuoso.grid.setup",
        )
    return None


def unsettled(looked: Looked, orders: t.Sequence[Order], providers: t.Sequence[str]) -> Chosen:
    """Machines of which a copy is on its way somewhere, as moves that go nowhere.

    Which copy is the true one is all that is asked of them.

    :param looked: results of the step ``look`` with ``unsettled``.
    :param orders: what the store knows.
    :returns: among ``failed`` the hosts on which the step failed as a whole.
    """
    known = {order["uuid"]: order for order in orders}
    found: dict[str, Move] = {}
    for host, result in looked.items():
        for machine in result.get("unsettled") or ():
            identity = machine["uuid"]
            order: Order = known.get(identity) or {}
            name = order.get("name") or machine["name"] or (found.get(identity) or {}).get("name")
            provider = order.get("provider")
            source = provider if provider in providers and provider else host
            memory: Known | None = {"provider": provider, "generation": order.get("generation")} if order else None
            # One that only shows by what came of it has no name but its uuid.
            question: Question = {"uuid": identity, "name": None if name == identity else name, "source": source}
            first = found.get(identity)
            found[identity] = {
                "uuid": identity,
                "name": name or identity,
                "source": first["source"] if first else source,
                "target": None,
                "known": memory,
                "question": {**question, "source": first["source"]} if first else question,
                "spec": {},
            }
    return {"moves": list(found.values()), "failed": failed_hosts(looked)}


def _rows(looked: Looked, host: str) -> dict[str, View]:
    """What a host told of machines, by uuid."""
    return {str(row["uuid"]): row for row in (looked.get(host) or {}).get("machines") or ()}


def views(move: Move, looked: Looked) -> tuple[list[copies.Copy], dict[str, View], list[Row]]:
    """What the hosts say of one machine: copies, rows by host, and rows that are errors."""
    ends = [move["source"], *([move["target"]] if move["target"] else [])]
    rows: dict[str, View] = {}
    found: list[copies.Copy] = []
    errors: list[Row] = []
    for host in dict.fromkeys([*ends, *looked]):
        row = _rows(looked, host).get(move["uuid"])
        if row is not None and row.get("failed"):
            errors.append(t.cast(Row, {**row, "name": move["name"]}))
        elif row is not None:
            rows[host] = row
        if row is not None or host in ends:
            found.append(copies.copy_of(host, rows.get(host)))
    return found, rows, errors


def in_turn(verdict: copies.Verdict, rows: t.Mapping[str, View]) -> t.Iterator[tuple[bool, str, str]]:
    """The actions of a verdict: whether each is for later, its host, and what it is.

    Another run may be at work on the machine. A live one holds the machine's lock at the source: so the source is asked
    first. One that moves files holds it at the target: so the target is told first that what still comes of the attempt
    is to be thrown away.
    """
    actions = dict(verdict.actions)
    restored = next((host for host, action in actions.items() if action == copies.RESTORE), None)
    mark = rows[restored].get("moving") if restored else None
    files = bool(restored and mark and rows[restored]["state"] not in ("running", "paused"))
    if files and mark and mark["to"] in rows and rows[mark["to"]]["state"] == "absent":
        actions.setdefault(mark["to"], copies.DISCARD)
    for host, action in actions.items():
        late = action == copies.RESTORE if files else action in (copies.DISCARD, copies.RELEASE)
        yield late, host, action


def remaining(entries: t.Mapping[str, t.Sequence[SettleEntry]], first: Looked) -> dict[str, list[SettleEntry]]:
    """What follows, without the machines whose first turn failed. Nothing does where a host said nothing.

    :param first: results of what came first, by host.
    """
    lost = {row["uuid"] for result in first.values() for row in result.get("machines") or () if row.get("failed")}
    silent = any(not isinstance(result.get("machines"), list) for result in first.values())
    return {
        host: [entry for entry in group if entry["uuid"] not in lost and not silent] for host, group in entries.items()
    }


def settled(settle: Settle, first: Looked, then: Looked) -> Settled:
    """What settling has led to. :param then: results of what followed; none before it was done."""
    done: list[Row] = []
    failed: list[Row] = []
    for host, result in [*first.items(), *then.items()]:
        for row in result.get("machines") or ():
            (failed if row.get("failed") else done).append(t.cast(Row, {**row, "provider": host}))
    return {"then": remaining(settle["then"], first), "done": done, "failed": failed}


def _settle_entry(
    move: Move, rows: t.Mapping[str, View], verdict: copies.Verdict, host: str, action: str
) -> SettleEntry:
    """What the step ``settle`` is to do on a host."""
    mark = next((row["moving"] for row in rows.values() if row.get("moving")), None)
    true: View = rows.get(verdict.host or "", {})
    return {
        "name": move["name"],
        "uuid": move["uuid"],
        "action": action,
        "generation": true.get("generation", 0),
        "attempt": mark["attempt"] if mark else None,
        "autostart": bool(mark and mark.get("autostart")),
        "lease": next((row["lease"] for row in rows.values() if row.get("lease")), None),
    }


def plan(wanted: t.Sequence[Move], looked: Looked, options: Options = Options()) -> Plan:
    """Decide for each machine what comes next, by what was seen.

    :param looked: results of the step ``look``; a host that didn't answer has none.
    """
    answer: Plan = {"settle": {"first": {}, "then": {}}, "moves": [], "rows": [], "seen": []}
    promised: dict[str, dict[str, int]] = {}
    for move in wanted:
        found, rows, errors = views(move, looked)
        if errors:
            answer["rows"].append(errors[0])
            continue
        verdict = copies.decide(found, move["known"], options.dead)
        for host in verdict.stale:
            stale = GridError(
                "stale_generation",
                f"an old copy of the machine, of generation {rows[host].get('generation')}, is here and stays off",
                remedy="When nobody needs its disk, remove it: undefine the domain, and its directory in the depot",
            )
            answer["rows"].append({**failed_row(move, stale, host), "provider": host})
        for late, host, action in in_turn(verdict, rows):
            turn = answer["settle"]["then" if late else "first"]
            turn.setdefault(host, []).append(_settle_entry(move, rows, verdict, host, action))
        if verdict.problem is not None:
            answer["rows"].append(failed_row(move, explain_silence(verdict.problem, looked)))
        elif not verdict.actions:
            _next(answer, move, str(verdict.host), rows, looked, promised, options)
    return answer


def _next(
    answer: Plan,
    move: Move,
    source: str,
    rows: t.Mapping[str, View],
    looked: Looked,
    promised: dict[str, dict[str, int]],
    options: Options,
) -> None:
    """One whose true copy is at rest: it is where it should be, it goes, or it can't.

    :param promised: by target, ``memory_promised`` and ``disk_promised`` of the machines that go there.
    """
    target, view = move["target"], rows[source]
    answer["seen"].append({**view["facts"], "provider": source})
    if target is None or target == source:
        answer["rows"].append(
            {
                "name": move["name"],
                "uuid": move["uuid"],
                "changed": False,
                "provider": source,
                "state": view["state"],
                "actions": [],
            }
        )
        return
    there = (looked.get(target) or {}).get("host")
    if there is None:
        said = reason(looked.get(target))[1]
        error = GridError(
            "target_unreachable",
            f"{target} can't take the machine: {said[:300]}",
            remedy="See that the host is up, then run again",
        )
        answer["rows"].append(failed_row(move, error))
        return
    way = options.mode
    if way not in choice.MODES:
        way = choice.choose_mode(view["state"], view["memory"], options.speeds.get(f"{source}>{target}"))
    spent = promised.setdefault(target, {"memory_promised": 0, "disk_promised": 0})
    here = t.cast(Host, {**(looked[source].get("host") or {}), "name": source})
    facts = t.cast(Host, {**there, **spent, "name": target})
    errors = choice.check(way, view, facts, reserve=options.reserve)
    if errors:
        row = failed_row(move, errors[0], target)
        row["failure"]["all"] = [{"code": error.code, "msg": error.msg} for error in errors]
        row["plan"] = "refused: " + "; ".join(error.msg for error in errors)
        answer["rows"].append(row)
        return
    spent["memory_promised"] += view["memory"]
    spent["disk_promised"] += choice.needed(view)
    known = move["known"]["generation"] if move["known"] else None
    machine = {
        **{key: view.get(key) for key in _CARRIED},
        "source": source,
        "target": target,
        "mode": way,
        "generation": max(view["generation"], int(known or 0)) + 1,
        "attempt": uuid.uuid4().hex,
        "was": view["state"],
        "image": view["image"],
        "missing": [layer for layer in view["layers"] if layer not in (there.get("layers") or [])],
        "reserve": options.reserve,
        "size": view["disk_used"] + (view["memory"] if way != choice.COLD else 0),
        "link": tuple(sorted(str(options.sites.get(end)) for end in (source, target))),
        "plan": choice.describe(way, view, here, facts),
        "postcopy": bool(there.get("postcopy")),
        "status": "planned",
    }
    answer["moves"].append(t.cast(Machine, machine))


def to_place(wanted: t.Sequence[Move], looked: Looked, sites: t.Mapping[str, str]) -> list[Placement]:
    """Machines for which a target is to be chosen, by their sources, for the module ``placement``."""
    found: list[Placement] = []
    without = [move for move in wanted if move["target"] is None]
    for source in dict.fromkeys(move["source"] for move in without):
        machines: list[dict[str, object]] = []
        for move in (move for move in without if move["source"] == source):
            spec = {key: value for key, value in move["spec"].items() if value is not None}
            row: View = _rows(looked, source).get(move["uuid"]) or {}
            image = move.get("image") or row.get("image") or {"name": "none", "digest": "sha256:" + "0" * 64}
            sizes = {"size": 0, "virtual_size": row.get("disk") or 1}
            machines.append({**spec, "name": move["name"], "uuid": None, "image": {**image, **sizes}})
        unreachable = {"unreachable": True, "reason": "it does not answer"}
        providers: list[dict[str, object]] = [
            {"name": host, "site": sites.get(host), **(result.get("host") or unreachable)}
            for host, result in looked.items()
            if host != source
        ]
        found.append({"source": source, "machines": machines, "providers": providers})
    return found


def placed(wanted: t.Sequence[Move], results: t.Sequence[Result]) -> Chosen:
    """The moves with the targets that ``placement`` has chosen, and rows of those for which there is none."""
    rows = {row["name"]: row for result in results for row in result.get("machines") or ()}
    broken = next((reason(result) for result in results if not isinstance(result.get("machines"), list)), None)
    found: list[Move] = []
    failed: list[Row] = []
    for move in wanted:
        row: Row = rows.get(move["name"]) or {}
        if not row and broken:
            row = {"failure": {"code": broken[0]}, "msg": broken[1]}
        if move["target"] is not None:
            found.append(move)
        elif row.get("provider"):
            found.append({**move, "target": row["provider"]})
        else:
            error = GridError(
                (row.get("failure") or {}).get("code") or "no_provider",
                str(row.get("msg") or "no other provider can take it"),
                remedy="Make room, or name a provider: -e to=NAME",
            )
            failed.append(failed_row(move, error))
    return {"moves": found, "failed": failed}
