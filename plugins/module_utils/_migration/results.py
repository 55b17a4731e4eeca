# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of tasks, sorted by host, and what is said where a whole task failed (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import (
    Journey,
    Looked,
    Machine,
    Move,
    Notice,
    Registered,
    Result,
    Row,
)


def key(journey: Journey) -> str:
    """What a journey's results are found by."""
    return f"{journey['source']}>{journey['target']}"


def _name(item: Journey | Notice) -> str:
    return key(t.cast(Journey, item)) if "source" in item else t.cast(Notice, item)["host"]


def by_host(registered: t.Iterable[Registered | None]) -> dict[str, Result]:
    """Results of a task that was looped over hosts, notices or journeys (variable ``migrate__item``).

    :param registered: what each host of the play registered.
    :returns: results by host, or by a journey's :func:`key`.
    """
    found: dict[str, Result] = {}
    for each in registered:
        for result in (each or {}).get("results") or ():
            item = result.get("migrate__item")
            if item is not None and not result.get("skipped"):
                found[item if isinstance(item, str) else _name(item)] = result
    return found


def failed_row(machine: Move | Machine, error: GridError, host: str | None = None) -> Row:
    """A machine's row where it could not be moved."""
    exc = error.on(host=host or "controller", object=f"machine {machine['name']}", tried="migrate the machine")
    row = {"name": machine["name"], "uuid": machine.get("uuid"), "changed": False, **exc.result()}
    return t.cast(Row, row)


def reason(result: Result | None) -> tuple[str, str]:
    """Code and message of a result that says nothing of machines.

    A host that can't be reached (``host_unreachable``) and a task that failed there are told apart.
    """
    told: Result = result or {}
    if told.get("unreachable") or not told:
        return "host_unreachable", str(told.get("msg") or "it does not answer")[:1000]
    output = told.get("exception") or told.get("module_stderr") or told.get("module_stdout") or ""
    last = str(output).strip().splitlines()[-1:]
    parts = (told.get("msg") or "the step failed without a word", *last)
    said = " ".join(dict.fromkeys(str(part).strip() for part in parts))
    return str((told.get("failure") or {}).get("code") or "step_failed"), said[:1000]


def failed_hosts(looked: Looked) -> list[Row]:
    """A row for each host that can be reached and on which the task failed as a whole."""
    rows = []
    for host, result in looked.items():
        if not isinstance(result.get("machines"), list) and not result.get("unreachable"):
            code, said = reason(result)
            error = GridError(code, said, remedy="Mend what is wrong there, then run again")
            error.on(host=host, object=f"provider {host}", tried="look for machines on their way")
            rows.append(t.cast(Row, {"name": host, "uuid": None, "provider": host, "changed": False, **error.result()}))
    return rows


def explain_silence(error: GridError, looked: Looked) -> GridError:
    """The error of hosts that said nothing of a machine; where one of them was reached, what went wrong there."""
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
