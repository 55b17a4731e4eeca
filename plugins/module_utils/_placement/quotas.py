# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas, what owners may have in total: read from options, compared with the store, written."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import check_text, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import ANYBODY, Quota
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.stored import quotas
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

if t.TYPE_CHECKING:
    import sqlalchemy as sa

_COUNTS, _SIZES = ("vcpus", "machines"), ("memory", "disk")


def _count(value: object, field: str) -> int:
    if isinstance(value, bool) or not str(value).isascii() or not str(value).isdigit() or int(str(value)[:12]) >= 2**31:
        raise GridError(
            "invalid_quota", f"{field} {shorten(value)} is not a number", remedy="Give a whole number from 0"
        )
    return int(str(value))


def read_quota(given: object, *, absent: bool) -> tuple[str, Quota]:
    """An owner, or ``*`` for those without a quota of their own, and the quota.

    :raises GridError: ``invalid_quota``, ``invalid_owner``, ``invalid_size``.
    """
    fields = ("owner", *_COUNTS, *_SIZES)
    entry = given if isinstance(given, t.Mapping) else {"owner": given} if absent else {}
    unknown = sorted(str(field) for field in set(entry) - set(fields))
    if unknown or "owner" not in entry:
        wrong = f"unknown fields: {shorten(', '.join(unknown))}" if unknown else f"{shorten(given)} is not a quota"
        raise GridError("invalid_quota", wrong, remedy=f"Give a mapping of {', '.join(fields)}")
    owner = entry["owner"] if entry["owner"] == ANYBODY else check_text("owner", entry["owner"])
    bounds = {field: _count(entry[field], field) for field in _COUNTS if entry.get(field) is not None}
    bounds.update({field: parse_size(entry[field], field) for field in _SIZES if entry.get(field) is not None})
    return owner, Quota(**bounds)


def serve(
    connection: sa.Connection, entries: t.Sequence[object], *, absent: bool, check: bool
) -> tuple[list[Result], list[dict[str, str]]]:
    """Set or remove quotas; a bad entry fails alone. Returns results and diffs."""
    have = quotas(connection)
    diffs: list[dict[str, str]] = []

    def one(given: object) -> Result:
        owner, wanted = read_quota(given, absent=absent)
        before, after = have.get(owner), None if absent else wanted
        if before == after:
            return {"owner": owner}
        table = schema.QUOTA
        if not check:
            connection.execute(table.delete().where(table.c.owner == owner))
            if after is not None:
                writing.insert(connection, table, [{"owner": owner, **dataclasses.asdict(after)}])
        if after is None:
            have.pop(owner)
        else:
            have[owner] = after
        states = [None if quota is None else dataclasses.asdict(quota) for quota in (before, after)]
        diffs.append(diff(f"quota of {owner}", *states))
        return {"owner": owner, "changed": True}

    results = []
    for position, given in enumerate(entries, 1):
        owner = given.get("owner") if isinstance(given, t.Mapping) else given
        name = shorten(owner).strip("'") if isinstance(owner, str) else f"entry {position}"
        results.append(attempt(name, functools.partial(one, given), kind="quota of", tried="set the quota"))
    return results, diffs
