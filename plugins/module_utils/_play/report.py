# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of each machine over the steps of a play, and a table of it (pure)."""

from __future__ import annotations

import typing as t
import unicodedata

from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

Row = t.Dict[str, t.Any]


def join(steps: t.Iterable[t.Iterable[t.Mapping[str, t.Any]]]) -> list[Row]:
    """One row for each machine name, in order of first appearance: later steps add to and overrule earlier ones.

    A failure stays: no later step makes a failed machine a served one, and the first failure is the one that counts.
    Entries of one step with the same name (the same machine listed twice, say) are told apart: the failed one gets a
    row of its own.
    """
    rows: dict[str, Row] = {}
    doubles: list[Row] = []
    for step in steps:
        seen: set[str] = set()
        for result in step:
            name = str(result.get("name", "(without name)"))
            if name in seen and (result.get("failed") or rows[name].get("failed")):
                doubles.append(dict(result))
                continue
            seen.add(name)
            row = rows.setdefault(name, {"name": name})
            changed = bool(row.get("changed") or result.get("changed"))
            actions = [*row.get("actions", []), *(result.get("actions") or [])]
            kept = {key: row[key] for key in ("failed", "msg", "failure") if row.get("failed")}
            row.update({key: value for key, value in result.items() if value is not None})
            row.update(kept, changed=changed)
            if actions:
                row["actions"] = actions
    return [*rows.values(), *doubles]


def _only_ordered(row: Row) -> str | None:
    """The address of a machine that was ordered with one, and that nothing has seen it have."""
    address = (
        row.get("address") if isinstance(row.get("address"), t.Mapping) else (row.get("spec") or {}).get("address")
    )
    return f"{str(address.get('ip', '')).partition('/')[0]} (ordered)" if isinstance(address, t.Mapping) else None


def cell(row: Row, column: str) -> str:
    """The text of one cell: the fields of a row as people want to see them, ``-`` for what isn't known."""
    value: t.Any = row.get(column)
    spec = row.get("spec") or {}
    if column == "state" and row.get("failed"):
        value = f"failed: {(row.get('failure') or {}).get('code', 'unknown')}"
    elif column == "state" and row.get("restart_required"):
        value = f"{value}, restart required"
    elif column == "image":
        image = value or spec.get("image")
        value = (image.get("name") or image.get("digest")) if isinstance(image, t.Mapping) else image
    elif column == "address":
        value = ", ".join(row.get("addresses") or []) or _only_ordered(row)
    elif column == "console":
        display = row.get("display")
        value = (
            f"{display['type']} {display['host']}:{display['port']}"
            if isinstance(display, t.Mapping) and display.get("port")
            else None
        )
    elif column == "screenshot":
        value = value.get("path") if isinstance(value, t.Mapping) else None
    elif column == "cpu":
        usage = row.get("usage") or {}
        value = f"{usage['cpu']} of {usage['cpu_ceiling']} %" if usage.get("cpu") is not None else None
    elif column == "snapshots":
        value = [each.get("name") if isinstance(each, t.Mapping) else each for each in value or []] or None
    elif column == "memory":
        size = value or spec.get("memory")
        value = format_size(size) if size else None
    elif value is None:
        value = spec.get(column)
    text = (
        ", ".join(map(str, value))
        if isinstance(value, (list, tuple))
        else str(value if value not in (None, "") else "-")
    )
    # Guests and other people choose some of this text: nothing in it may steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)


def refusal(rows: t.Sequence[Row], what: str) -> Row:
    """What a result says where some rows failed, ``msg`` and ``failure``; nothing where none did.

    :param what: what the rows are, in the plural.
    """
    failed = [row for row in rows if row.get("failed")]
    if not failed:
        return {}
    codes = sorted({(row.get("failure") or {}).get("code", "unknown") for row in failed})
    told = "\n".join(f"- {row.get('msg')}" for row in failed)
    return {
        "failed": True,
        "msg": f"{len(failed)} of {len(rows)} {what} could not be served:\n{told}",
        "failure": {"code": "some_failed", "codes": codes},
    }


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def table(rows: t.Sequence[Row], columns: t.Sequence[str]) -> list[str]:
    """The lines of a table with a heading, columns padded to their widest cell."""
    cells = [[column.upper() for column in columns], *([cell(row, column) for column in columns] for row in rows)]
    widths = [max(_width(line[index]) for line in cells) for index in range(len(columns))]
    return [
        "  ".join(text + " " * (width - _width(text)) for text, width in zip(line, widths)).rstrip() for line in cells
    ]
