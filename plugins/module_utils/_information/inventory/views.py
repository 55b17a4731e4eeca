# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's row of the store as modules and the inventory show it (pure; needs no database library)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import reference

Row = t.Dict[str, t.Any]


def state_of(row: Row) -> str:
    """A machine's state as it is shown: ``future``, ``placed`` (a future with room held on a provider), or what was
    last seen of it."""
    if row["future"]:
        return "placed" if row["provider"] else "future"
    return row["state"] or "unknown"


def generation_of(row: Row) -> int:
    """The newest generation known of a machine."""
    return max(row["ordered_generation"] or 0, row["generation"] or 0)


def machine_view(row: Row) -> Row:
    """A machine as modules and the inventory show it."""
    facts = row["facts"] or {}
    return {
        **{
            name: row[name]
            for name in ("name", "uuid", "owner", "spec", "provider", "site", "address", "seen", "created", "updated")
        },
        "reference": reference(row["uuid"]),
        "state": state_of(row),
        "generation": generation_of(row),
        "image": None if row["future"] else facts.get("image"),
        "addresses": facts.get("addresses") or [],
        "mac": facts.get("mac"),
        "display": facts.get("display"),
        "restart_required": bool(facts.get("restart_required")),
    }
