# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings as rows of a table that fits a terminal, and what a play says at its end (pure)."""

from __future__ import annotations

import textwrap
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import Finding

WIDTH = 120
COLUMNS = ("host", "check", "state", "finding")
_SEVERITY = ("error", "warning", "skipped", "ok")
_LEAST = 40
_GAP = 2


def rows(findings: t.Sequence[Finding], *, everything: bool = False, width: int = WIDTH) -> t.List[t.Dict[str, str]]:
    """Rows for the module report: the worst of each host first, then what is well, in one row.

    A long finding goes on in rows of its own, and its remedy follows behind an arrow.

    :param everything: a row for each check that is well, too.
    """
    heads: t.List[t.Tuple[str, str, str, t.List[t.Tuple[str, str]]]] = []
    for host in dict.fromkeys(each["host"] for each in findings):
        own = [each for each in findings if each["host"] == host]
        for state in _SEVERITY:
            some = [each for each in own if each["state"] == state]
            if state == "ok" and some and not everything:
                some = _together(some)
            for each in some:
                texts = [("", each["message"]), *([("-> ", each["remedy"])] if each["remedy"] else [])]
                heads.append((host, each["check"], state, texts))
    taken = [max([len(head[index]) for head in heads] + [len(COLUMNS[index])]) for index in range(3)]
    room = max(_LEAST, width - sum(taken) - _GAP * 3)
    lines: t.List[t.Dict[str, str]] = []
    for host, check, state, texts in heads:
        wrapped = [
            line
            for mark, text in texts
            for line in textwrap.wrap(text, room, initial_indent=mark, subsequent_indent=" " * len(mark)) or [" "]
        ]
        for number, line in enumerate(wrapped):
            cells = (host, check, state) if number == 0 else (" ", " ", " ")
            lines.append({"name": str(len(lines)), **dict(zip(COLUMNS, (*cells, line)))})
    return lines


def _together(some: t.Sequence[Finding]) -> t.List[Finding]:
    """One finding for all that are well; those that answer a question keep their text."""
    plain = [each for each in some if each["code"] == "ok"]
    told = [each for each in some if each["code"] != "ok"]
    if len(plain) < 2:
        return [*told, *plain]
    checks = ", ".join(dict.fromkeys(each["check"] for each in plain))
    return [*told, {**plain[0], "check": f"{len(plain)} checks", "message": checks}]


def title(findings: t.Sequence[Finding]) -> str:
    """A line before the table."""
    counts = {state: sum(each["state"] == state for each in findings) for state in _SEVERITY}
    parts = [f"{counts[state]} {state}{'s' if counts[state] != 1 else ''}" for state in ("error", "warning")]
    return f"Doctor: {', '.join(parts)}, {counts['ok']} checks well"


def verdict(findings: t.Sequence[Finding]) -> str:
    """What a play fails with; empty where there is no error. The table has the rest."""
    errors = [each for each in findings if each["state"] == "error"]
    if not errors:
        return ""
    told = "; ".join(f"{each['host']}: {each['code']}" for each in errors)
    return f"{len(errors)} error{'s' if len(errors) > 1 else ''} found, with what to do in the table above: {told}"
