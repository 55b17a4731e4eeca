# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's row of the store as modules and the inventory show it (pure; needs no database library)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    DisplayPlace,
    ImageName,
    MachineRow,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import Spec, reference


class MachineView(t.TypedDict):
    """A machine as it is shown; the module ``order_info`` documents the fields."""

    name: str
    uuid: str
    reference: str  # the uuid as a URN
    owner: str | None
    state: str
    spec: Spec | None
    provider: str | None  # name
    site: str | None
    generation: int
    image: ImageName | None  # of an existing machine
    address: str | None
    addresses: list[str]
    ordered_address: str | None
    mac: str | None
    display: DisplayPlace | None
    restart_required: bool
    seen: str | None
    created: str | None
    updated: str | None


def state_of(row: MachineRow) -> str:
    """``future``, ``placed`` (a future with room held on a provider), or the state that was last seen."""
    if row["future"]:
        return "placed" if row["provider"] else "future"
    return row["state"] or "unknown"


def generation_of(row: MachineRow) -> int:
    """The newest generation that is known of a machine."""
    return max(row["ordered_generation"] or 0, row["generation"] or 0)


def _ordered_address(row: MachineRow) -> str | None:
    """The address that a machine was ordered with, without its prefix, whether anything has seen it or not."""
    address = row["spec"].get("address") if row["spec"] else None
    return address["ip"].partition("/")[0] if address else None


def machine_view(row: MachineRow) -> MachineView:
    """A machine as modules and the inventory show it."""
    facts = row["facts"] or {}
    return {
        "name": row["name"],
        "uuid": row["uuid"],
        "reference": reference(row["uuid"]),
        "owner": row["owner"],
        "state": state_of(row),
        "spec": row["spec"],
        "provider": row["provider"],
        "site": row["site"],
        "generation": generation_of(row),
        "image": None if row["future"] else facts.get("image"),
        "address": row["address"],
        "addresses": facts.get("addresses") or [],
        "ordered_address": _ordered_address(row),
        "mac": facts.get("mac"),
        "display": facts.get("display"),
        "restart_required": bool(facts.get("restart_required")),
        "seen": row["seen"],
        "created": row["created"],
        "updated": row["updated"],
    }
