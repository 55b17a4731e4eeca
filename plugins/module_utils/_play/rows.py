# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks of a play did to each machine (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import (
    Failure,
    MachineEntry,
    Order,
    Result,
    Row,
)

Machines = t.Sequence[t.Union[Order, MachineEntry, Row]]


def step_rows(steps: t.Mapping[str, Result], machines: Machines, host: str) -> dict[str, list[Row]]:
    """By the name of each step, its result for each machine.

    Where the step as a whole failed or its host was unreachable, that is the result of every machine that it was given.

    :param steps: what the steps' tasks registered. A loop is one over homes, each item with its own ``home`` and
        ``machines``; of its rows only failures are returned, because a home doesn't run machines.
    :param machines: those that the tasks were given.
    :param host: where they ran.
    """
    found = {}
    for step, result in steps.items():
        loop = result.get("results")
        found[step] = _rows(result, machines, host) if loop is None else _home_failures(loop)
    return found


def _rows(result: Result, machines: Machines, host: str) -> list[Row]:
    own = result.get("machines")
    if not isinstance(own, list):
        return _failures(result, machines, host, host)
    # What isn't on the host (its creation failed, say) has no name there, only the one that it was asked for by.
    names = {machine.get("uuid"): machine["name"] for machine in machines}
    return [{**row, "name": row.get("name") or names.get(row.get("uuid")), "provider": host} for row in own]


def _failures(result: Result, machines: Machines, host: str, provider: str | None) -> list[Row]:
    """The failure of a whole step for each of its machines; nothing where it didn't fail."""
    # Where failed_when let a failure pass, "failed" is false and "failure" still shows it.
    if not (result.get("failed") or result.get("failure") or result.get("unreachable")):
        return []
    unknown: Failure = {
        "code": "provider_unreachable" if result.get("unreachable") else "step_failed",
        "host": host,
        "remedy": "See that the host is up and that Ansible reaches it, then run again",
    }
    said = result.get("msg") or "the host could not be reached"
    rows: list[Row] = [
        {
            "name": machine["name"],
            "uuid": machine.get("uuid"),
            "provider": provider,
            "changed": False,
            "failed": True,
            "msg": f"{host}: machine {machine['name']}: {said}",
            "failure": {**(result.get("failure") or unknown)},
        }
        for machine in machines
    ]
    return rows


def _home_failures(results: t.Sequence[Result]) -> list[Row]:
    """Machines that their home refused, or that it could not be asked about."""
    rows: list[Row] = []
    for result in results:
        own = result.get("machines")
        if isinstance(own, list):
            rows += [_kept(row) for row in own if row.get("failed")]
            continue
        share = t.cast("dict[str, t.Any]", result.get("item") or {})
        home = share.get("home")
        for row in _failures(result, share.get("machines") or (), str(home), None):
            if not result.get("failure"):
                row["failure"] = {
                    "code": "home_unreachable",
                    "host": home,
                    "remedy": "See that the home is up, then run again",
                }
            rows.append(_kept(row))
    return rows


def _kept(row: Row) -> Row:
    """What a home says of a machine that it refused; not where it is, and in which state."""
    return t.cast(Row, {key: row.get(key) for key in ("name", "uuid", "changed", "failed", "msg", "failure")})


def side_failures(hosts: t.Mapping[str, t.Mapping[str, object]], steps: t.Mapping[str, str]) -> list[str]:
    """Why steps failed without which machines run all the same: one sentence a failure.

    :param hosts: by host, the variables in which tasks registered their results.
    :param steps: by the name of the variable, what the task was to do.
    :returns: what ran once for all hosts is in it once.
    """
    found: dict[str, None] = {}
    for host, variables in hosts.items():
        for variable, purpose in steps.items():
            registered = t.cast(Result, variables.get(variable) or {})
            for result in registered.get("results") or [registered]:
                for part in (result, *(result.get("machines") or ())):
                    said = _failure_text(t.cast(Result, part))
                    if said is not None:
                        found[f"{_place(result, host)}: could not {purpose}: {said}"] = None
    return list(found)


def _place(result: Result, host: str) -> str:
    """The host that a result is about: its item, where that is one or names a home."""
    item = result.get("item")
    if isinstance(item, str):
        return item
    return str(item.get("home", host)) if isinstance(item, dict) else host


def _failure_text(result: Result) -> str | None:
    """What a result says of its failure, whether its task was allowed to fail or not; ``None`` if there was none."""
    if not isinstance(result, dict) or not any(
        (result.get("failure"), result.get("exception"), result.get("unreachable"), result.get("failed"))
    ):
        return None
    code = (result.get("failure") or {}).get("code")
    lines = str(result.get("msg") or "it ended with an exception").strip().splitlines()
    return f"{lines[0]} ({code})" if code else lines[0]
