# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to be done for machines that are to move: who goes where, which copy is the true one, who can go
(pure)."""

from __future__ import annotations

import typing as t
import uuid

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

Item = t.Dict[str, t.Any]
Items = t.List[Item]
View = t.Mapping[str, t.Any]

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


def failed_row(machine: View, error: GridError, host: str | None = None) -> Item:
    """A machine's result where it could not be served."""
    exc = error.on(host=host or "controller", object=f"machine {machine['name']}", tried="migrate the machine")
    return {"name": machine["name"], "uuid": machine.get("uuid"), "changed": False, **exc.result()}


def reason(result: View | None) -> tuple[str, str]:
    """Code and message of a step that says nothing of its machines: whether its host can't be reached, or the step
    failed there, is not the same."""
    told = result or {}
    failure = told.get("failure") or {}
    if told.get("unreachable") or not told:
        return "host_unreachable", str(told.get("msg") or "it does not answer")[:1000]
    last = (
        str(told.get("exception") or told.get("module_stderr") or told.get("module_stdout") or "")
        .strip()
        .splitlines()[-1:]
    )
    said = " ".join(
        dict.fromkeys(str(part).strip() for part in (told.get("msg") or "the step failed without a word", *last))
    )
    return str(failure.get("code") or "step_failed"), said[:1000]


def speechless(looked: t.Mapping[str, View]) -> Items:
    """A row for each host that can be reached, and on which the step failed as a whole."""
    rows = []
    for host, result in looked.items():
        if not isinstance(result.get("machines"), list) and not result.get("unreachable"):
            code, said = reason(result)
            error = GridError(code, said, remedy="Mend what is wrong there, then run again")
            error.on(host=host, object=f"provider {host}", tried="look for machines on their way")
            rows.append({"name": host, "uuid": None, "provider": host, "changed": False, **error.result()})
    return rows


def _why_silent(error: GridError, looked: t.Mapping[str, View]) -> GridError:
    """The error of hosts that said nothing of a machine; where one of them could be reached, it is what went wrong
    there."""
    for host in error.details.get("hosts") or ():
        result = looked.get(host)
        if (
            error.code == "host_unreachable"
            and result
            and not result.get("unreachable")
            and not isinstance(result.get("machines"), list)
        ):
            code, said = reason(result)
            return GridError(
                code,
                f"{host} can't tell of the machine: {said}",
                remedy="Mend what is wrong there, then run again",
                hosts=[host],
            )
    return error


def by_host(registered: t.Sequence[View | None]) -> dict[str, View]:
    """Results of a step that was looped over hosts (variable ``migrate__item``), by host; later ones of one host are
    added to the first."""
    found: dict[str, Item] = {}
    for each in registered:
        for result in (each or {}).get("results") or ():
            item = result.get("migrate__item")
            if item is None or result.get("skipped"):
                continue
            host = item if isinstance(item, str) else f"{item['source']}>{item['target']}"
            found[host] = dict(result)
    return found


def moves(selected: t.Sequence[View], to: t.Any, providers: t.Sequence[str]) -> dict[str, Items]:
    """Who is to go where.

    :param selected: machines as the module ``order_info`` returns them.
    :param to: a provider's name, providers by the names of machines, or nothing to have one chosen.
    :returns: ``moves`` with ``name``, ``uuid``, ``source``, ``target`` (or ``None``), ``generation``; and ``failed``.
    """
    found: Items = []
    failed: Items = []
    for machine in selected:
        target = to.get(machine["name"]) if isinstance(to, t.Mapping) else to or None
        if not machine.get("provider") or machine.get("state") in ("future", "placed"):
            error = GridError(
                "machine_unknown", "the machine doesn't exist yet", remedy="Deploy it: virtuoso.grid.deploy"
            )
            failed.append(failed_row(machine, error))
        elif target is not None and target not in providers:
            error = GridError(
                "no_such_provider",
                f"there is no provider {target}",
                remedy=f"Give one of {', '.join(sorted(providers))}; or none, to have one chosen",
            )
            failed.append(failed_row(machine, error))
        elif target is None and not any(name != machine["provider"] for name in providers):
            error = GridError(
                "no_provider",
                "there is no other provider",
                remedy="Add one to the inventory's group providers, and run virtuoso.grid.setup",
            )
            failed.append(failed_row(machine, error))
        else:
            found.append(
                {
                    **{key: machine.get(key) for key in ("name", "uuid", "generation", "owner")},
                    "source": machine["provider"],
                    "target": target,
                    "known": {"provider": machine["provider"], "generation": machine.get("generation")},
                    "spec": machine.get("spec") or {},
                    "image": machine.get("image"),
                }
            )
    return {"moves": found, "failed": failed}


def _rows(looked: t.Mapping[str, View], host: str) -> dict[str, View]:
    """What a host told of machines, by uuid."""
    return {row["uuid"]: row for row in (looked.get(host) or {}).get("machines") or ()}


def views(move: View, looked: t.Mapping[str, View]) -> tuple[list[copies.Copy], dict[str, View], list[Item]]:
    """What the hosts say of one machine: copies, rows by host, and rows that are errors."""
    asked = list(dict.fromkeys([move["source"], *([move["target"]] if move["target"] else []), *looked]))
    rows, found, errors = {}, [], []
    for host in asked:
        row = _rows(looked, host).get(move["uuid"])
        if row is not None and row.get("failed"):
            errors.append({**row, "name": move["name"]})
        elif row is not None:
            rows[host] = row
        if row is not None or host in (move["source"], move["target"]):
            found.append(copies.copy_of(host, rows.get(host)))
    return found, rows, errors


def in_turn(verdict: copies.Verdict, rows: t.Mapping[str, View]) -> t.Iterator[tuple[int, tuple[str, str]]]:
    """The actions of a verdict, each with its turn: 0 for first, 1 for then.

    Another run may be at work on the machine. A live one holds the machine's lock at the source: so the source is asked
    first. One that moves files holds it at the target: so the target is told first that what still comes of the attempt
    is to be thrown away.
    """
    actions = dict(verdict.actions)
    restored = [host for host, action in actions.items() if action == copies.RESTORE]
    files = (
        bool(restored)
        and bool(rows[restored[0]].get("moving"))
        and rows[restored[0]]["state"] not in ("running", "paused")
    )
    if files:
        to = rows[restored[0]]["moving"]["to"]
        if to in rows and rows[to]["state"] == "absent":
            actions.setdefault(to, copies.DISCARD)
    for host, action in actions.items():
        late = action == copies.RESTORE if files else action in (copies.DISCARD, copies.RELEASE)
        yield (1 if late else 0), (host, action)


def still(entries_by_host: t.Mapping[str, t.Sequence[View]], results: t.Mapping[str, View]) -> dict[str, Items]:
    """What follows, without the machines whose first turn failed."""
    lost = {row["uuid"] for result in results.values() for row in result.get("machines") or () if row.get("failed")}
    silent = {host for host, result in results.items() if not isinstance(result.get("machines"), list)}
    return {
        host: [dict(entry) for entry in group if entry["uuid"] not in lost and not silent]
        for host, group in entries_by_host.items()
    }


def settled(results: t.Sequence[t.Mapping[str, View]]) -> dict[str, t.Any]:
    """What settling led to: ``done`` and ``failed`` rows."""
    done: Items = []
    failed: Items = []
    for host, result in (pair for each in results for pair in each.items()):
        for row in result.get("machines") or ():
            (failed if row.get("failed") else done).append({**row, "provider": host})
    return {"done": done, "failed": failed}


def settle_entry(move: View, rows: t.Mapping[str, View], verdict: copies.Verdict, host: str, action: str) -> Item:
    """What the module's step ``settle`` is to do on a host."""
    marks = [row["moving"] for row in rows.values() if row.get("moving")]
    true = rows.get(verdict.host or "", {})
    return {
        **{key: move[key] for key in ("name", "uuid")},
        "action": action,
        "generation": true.get("generation", 0),
        "attempt": marks[0]["attempt"] if marks else None,
        "autostart": bool(marks and marks[0].get("autostart")),
        "lease": next((row["lease"] for row in rows.values() if row.get("lease")), None),
    }


def plan(
    wanted: t.Sequence[View],
    looked: t.Mapping[str, View],
    *,
    mode: str = "auto",
    dead: t.Sequence[str] = (),
    sites: View | None = None,
    speeds: View | None = None,
    reserve: int | str = 0,
) -> Item:
    """Decide for each machine what comes next, by what was seen.

    :param looked: results of the step ``look`` by host; a host that didn't answer has none.
    :param dead: hosts of which a person says that they are dead.
    :param speeds: bytes a second by "source>target".
    :returns: ``settle`` (entries by host, those that come first and those that follow), ``moves``, ``rows`` of machines
        for which nothing is left to do, ``seen`` for the store.
    """
    answer: Item = {"settle": [{}, {}], "moves": [], "rows": [], "seen": []}
    promised: dict[str, dict[str, int]] = {}
    for move in wanted:
        found, rows, errors = views(move, looked)
        if errors:
            answer["rows"].append(errors[0])
            continue
        verdict = copies.decide(found, move["known"], dead)
        for host in verdict.stale:
            stale = GridError(
                "stale_generation",
                f"an old copy of the machine, of generation {rows[host].get('generation')}, is here and stays off",
                remedy="When nobody needs its disk, remove it: undefine the domain, and its directory in the depot",
            )
            answer["rows"].append({**failed_row(move, stale, host), "provider": host})
        for turn, (host, action) in in_turn(verdict, rows):
            answer["settle"][turn].setdefault(host, []).append(settle_entry(move, rows, verdict, host, action))
        if verdict.problem is not None:
            answer["rows"].append(failed_row(move, _why_silent(verdict.problem, looked)))
        elif not verdict.actions:
            _next(
                answer,
                move,
                verdict,
                rows,
                looked,
                promised,
                mode,
                sites or {},
                speeds or {},
                parse_size(reserve, "reserve"),
            )
    return answer


def _next(
    answer: Item,
    move: View,
    verdict: copies.Verdict,
    rows: t.Mapping[str, View],
    looked: t.Mapping[str, View],
    promised: dict[str, dict[str, int]],
    mode: str,
    sites: View,
    speeds: View,
    reserve: int,
) -> None:
    """One whose true copy is known and at rest: it is where it should be, it goes, or it can't."""
    source, target = t.cast(str, verdict.host), move["target"]
    view = rows[source]
    answer["seen"].append({**view["facts"], "provider": source})
    if target in (None, source):
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
    way = (
        mode
        if mode in choice.MODES
        else choice.choose_mode(view["state"], view["memory"], {"speed": speeds.get(f"{source}>{target}")})
    )
    spent = promised.setdefault(target, {"memory_promised": 0, "disk_promised": 0})
    here = {**(looked[source].get("host") or {}), "name": source}
    facts = {**there, **spent, "name": target}
    errors = choice.check(way, view, here, facts, reserve=reserve)
    if errors:
        row = failed_row(move, errors[0], target)
        row["failure"]["all"] = [{"code": error.code, "msg": error.msg} for error in errors]
        answer["rows"].append({**row, "plan": "refused: " + "; ".join(error.msg for error in errors)})
        return
    spent["memory_promised"] += view["memory"]
    spent["disk_promised"] += choice.needed(view)
    answer["moves"].append(
        {
            **{key: view.get(key) for key in _CARRIED},
            "source": source,
            "target": target,
            "mode": way,
            "generation": max(view["generation"], int((move["known"] or {}).get("generation") or 0)) + 1,
            "attempt": uuid.uuid4().hex,
            "was": view["state"],
            "image": view["image"],
            "missing": [layer for layer in view["layers"] if layer not in (there.get("layers") or [])],
            "reserve": reserve,
            "size": view["disk_used"] + (view["memory"] if way != choice.COLD else 0),
            "link": tuple(sorted((str(sites.get(source)), str(sites.get(target))))),
            "plan": choice.describe(way, view, here, facts),
            "postcopy": bool(there.get("postcopy")),
            "status": "planned",
        }
    )


def to_place(wanted: t.Sequence[View], looked: t.Mapping[str, View], sites: View) -> Items:
    """Machines for which a target is to be chosen, by their sources: ``source``, ``machines`` and ``providers`` for the
    module ``placement``."""
    found: Items = []
    for source in dict.fromkeys(move["source"] for move in wanted if move["target"] is None):
        machines = []
        for move in (move for move in wanted if move["target"] is None and move["source"] == source):
            spec = {key: value for key, value in move["spec"].items() if value is not None}
            row = _rows(looked, source).get(move["uuid"]) or {}
            image = {
                **(move.get("image") or row.get("image") or {"name": "none", "digest": "sha256:" + "0" * 64}),
                "size": 0,
            }
            machines.append(
                {**spec, "name": move["name"], "uuid": None, "image": {**image, "virtual_size": row.get("disk") or 1}}
            )
        providers = [
            {
                "name": host,
                "site": sites.get(host),
                **(result["host"] if result.get("host") else {"unreachable": True, "reason": "it does not answer"}),
            }
            for host, result in looked.items()
            if host != source
        ]
        found.append({"source": source, "machines": machines, "providers": providers})
    return found


def placed(wanted: t.Sequence[View], results: t.Sequence[View]) -> dict[str, Items]:
    """The moves with the targets that the module ``placement`` has chosen, and the rows of those for which there is
    none."""
    rows = {row["name"]: row for result in results for row in result.get("machines") or ()}
    broken = next((reason(result) for result in results if not isinstance(result.get("machines"), list)), None)
    found: Items = []
    failed: Items = []
    for move in wanted:
        row = rows.get(move["name"]) or ({"failure": {"code": broken[0]}, "msg": broken[1]} if broken else {})
        if move["target"] is not None:
            found.append(dict(move))
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


def asked(wanted: t.Sequence[View], host: str) -> Items:
    """What the step ``look`` is to tell of on a host; the seed only where the machine should be."""
    return [
        # One that only shows by what came of it has no name but its uuid.
        {
            "name": None if move["name"] == move["uuid"] else move["name"],
            "uuid": move["uuid"],
            "seed": move["source"] == host,
        }
        for move in wanted
    ]


def host_entry(variables: View) -> Item:
    """A provider for the module ``registration``, by its variables; a target may have machines before it was ever
    looked at."""
    name = variables["inventory_hostname"]
    return {
        "name": name,
        "site": variables.get("virtuoso_site") or name,
        "kind": "provider",
        "address": variables.get("ansible_host") or name,
        "port": int(variables.get("ansible_port") or 22),
        "user": variables.get("ansible_user") or "",
        "identity_file": variables.get("ansible_ssh_private_key_file") or "",
        "ssh_args": variables.get("ansible_ssh_common_args") or "",
    }


def waited(registered: t.Sequence[View | None]) -> bool:
    """Whether a look had to wait for another run's work on a machine."""
    return any(row.get("waited") for result in by_host(registered).values() for row in result.get("machines") or ())


def unsettled(registered: t.Mapping[str, View], orders: t.Sequence[View], providers: t.Sequence[str]) -> Items:
    """Machines of which a copy is on its way somewhere, as moves that go nowhere: which copy is the true one is all
    that is asked.

    :param registered: results of the step ``look`` with ``unsettled`` by host. :param orders: what the store knows.
    """
    known = {order["uuid"]: order for order in orders}
    found: dict[str, Item] = {}
    for host, result in registered.items():
        for machine in result.get("unsettled") or ():
            order = known.get(machine["uuid"]) or {}
            provider = order.get("provider") if order.get("provider") in providers else host
            move = found.setdefault(
                machine["uuid"],
                {
                    "uuid": machine["uuid"],
                    "name": order.get("name") or machine["name"] or machine["uuid"],
                    "source": provider,
                    "target": None,
                    "known": {"provider": order.get("provider"), "generation": order.get("generation")}
                    if order
                    else None,
                    "spec": {},
                },
            )
            if move["name"] == machine["uuid"] and machine["name"]:
                move["name"] = machine["name"]
    return list(found.values())
