# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of each machine over the steps of a play, and a table of it (pure)."""

from __future__ import annotations

import os
import typing as t
import unicodedata

from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

Row = t.Dict[str, object]
"""What the steps of a play say about one machine, or about whatever else the report is of."""

WIDTH = 120
"""Columns of a terminal that a table is to fit into."""

_VERBOSE = ("reference", "screenshot")
_DISPENSABLE = ("console", "memory", "cpu", "uuid", "digest", "reason")

Step = t.Iterable[t.Mapping[str, object]]
"""The results of one step."""


def steps_of(results: t.Iterable[Step | t.Mapping[str, Step]]) -> list[Step]:
    """All steps in their order: a host's steps may be given together, by their names."""
    found: list[Step] = []
    for entry in results:
        if isinstance(entry, t.Mapping):
            found.extend(entry.values())
        else:
            found.append(entry)
    return found


def join(steps: t.Iterable[Step]) -> list[Row]:
    """One row for each machine name, in order of first appearance: later steps add to and overrule earlier ones.

    A failure stays: no later step makes a failed machine a served one, and the first failure is the one that counts.
    Entries of one step with the same name (the same machine listed twice, say) are kept apart: the failed one gets a
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
            actions = [*_items(row.get("actions")), *_items(result.get("actions"))]
            kept = {key: row[key] for key in ("failed", "msg", "failure") if row.get("failed")}
            row.update({key: value for key, value in result.items() if value is not None})
            row.update(kept, changed=changed)
            if actions:
                row["actions"] = actions
    return [*rows.values(), *doubles]


def _items(value: object) -> t.Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def _list(value: object) -> object:
    """A list; ``None`` for an empty one."""
    return value or None


def _fields(value: object) -> t.Mapping[str, object]:
    return value if isinstance(value, t.Mapping) else {}


def _state(row: Row) -> object:
    if row.get("failed"):
        return f"failed: {_code(row)}"
    return f"{row.get('state')}, restart required" if row.get("restart_required") else row.get("state")


def _code(row: Row) -> str:
    return str(_fields(row.get("failure")).get("code", "unknown"))


def _image(row: Row) -> object:
    image = row.get("image") or _fields(row.get("spec")).get("image")
    return (image.get("name") or image.get("digest")) if isinstance(image, t.Mapping) else image


def _console(row: Row) -> object:
    display = _fields(row.get("display"))
    return f"{display['type']} {display['host']}:{display['port']}" if display.get("port") else None


def _cpu(row: Row) -> object:
    usage = _fields(row.get("usage"))
    return f"{usage['cpu']} of {usage['cpu_ceiling']} %" if usage.get("cpu") is not None else None


def _memory(row: Row) -> object:
    size = row.get("memory") or _fields(row.get("spec")).get("memory")
    return format_size(float(str(size))) if size else None


def _address(row: Row) -> object:
    """The addresses that something has seen; without one, the address that was ordered, marked so."""
    seen = _items(row.get("addresses"))
    if seen:
        return seen
    ordered = _fields(row.get("address") or _fields(row.get("spec")).get("address"))
    return f"{str(ordered.get('ip', '')).partition('/')[0]} (ordered)" if ordered else None


_COLUMNS: t.Mapping[str, t.Callable[[Row], object]] = {
    "state": _state,
    "image": _image,
    "address": _address,
    "console": _console,
    "screenshot": lambda row: _fields(row.get("screenshot")).get("path"),
    "cpu": _cpu,
    "snapshots": lambda row: _list([_fields(each).get("name", each) for each in _items(row.get("snapshots"))]),
    "memory": _memory,
}
"""How columns are made that are not simply the field of the same name."""


def cell(row: Row, column: str) -> str:
    """The text of one cell: the fields of a row as people want to see them, ``-`` for what isn't known."""
    if column in _COLUMNS:
        value = _COLUMNS[column](row)
    else:
        value = row[column] if row.get(column) is not None else _fields(row.get("spec")).get(column)
    text = (
        ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str("-" if value in (None, "") else value)
    )
    # Guests and other people choose some of this text: nothing in it may steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)


def refusal(rows: t.Sequence[Row], what: str) -> Row:
    """The ``failed``, ``msg`` and ``failure`` of a report of which some rows failed; nothing where none did.

    :param what: what the rows are, in the plural.
    """
    failed = [row for row in rows if row.get("failed")]
    if not failed:
        return {}
    codes = sorted({_code(row) for row in failed})
    messages = "\n".join(f"- {row.get('msg')}" for row in failed)
    return {
        "failed": True,
        "msg": f"{len(failed)} of {len(rows)} {what} could not be served:\n{messages}",
        "failure": {"code": "some_failed", "codes": codes},
    }


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def shown(rows: t.Sequence[Row], columns: t.Sequence[str], verbosity: int) -> list[str]:
    """The columns of the table that people get: with ``-v`` all, else those that fit into a terminal.

    :param verbosity: how often ``-v`` was given.
    """
    if verbosity:
        return list(columns)
    kept = [column for column in columns if column not in _VERBOSE]
    for column in _DISPENSABLE:
        if max(map(_width, table(rows, kept))) <= WIDTH:
            break
        kept = [each for each in kept if each != column]
    return kept


def pictures(rows: t.Sequence[Row]) -> str | None:
    """Where the screenshots are, in one line; ``None`` where there are none."""
    paths = [str(_fields(row.get("screenshot")).get("path") or "") for row in rows]
    places = sorted({os.path.dirname(path) for path in paths if path})
    return f"Screenshots, named by uuid, are in {', '.join(places)}" if places else None


def table(rows: t.Sequence[Row], columns: t.Sequence[str]) -> list[str]:
    """The lines of a table with a heading, columns padded to their widest cell."""
    cells = [[column.upper() for column in columns], *([cell(row, column) for column in columns] for row in rows)]
    widths = [max(_width(line[index]) for line in cells) for index in range(len(columns))]
    return [
        "  ".join(text + " " * (width - _width(text)) for text, width in zip(line, widths)).rstrip() for line in cells
    ]
