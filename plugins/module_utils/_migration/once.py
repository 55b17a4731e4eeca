# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves that need nothing else: whether one task can look, decide and make them all (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.plan import Item, View, host_entry

_EARLY = 4
"""So many ways to targets are begun before it is known whether they are needed: each is two processes of ssh."""


def end(variables: View, depot: str) -> Item:
    """A host as the step ``all`` takes it, by its variables. :param depot: where its own don't say."""
    name = variables["inventory_hostname"]
    return {
        "name": name,
        "address": variables.get("virtuoso_address") or variables.get("ansible_host") or name,
        "path": variables.get("virtuoso_depot") or depot,
        "site": variables.get("virtuoso_site") or name,
        "provider": host_entry(variables),
    }


def foreseen(moves: t.Iterable[View], mode: str) -> list[tuple[str, str]]:
    """Between which hosts a guest probably moves live, by what is known before anybody has looked: pairs of source and
    target, the first few."""
    pairs = dict.fromkeys(
        (move["source"], move["target"]) for move in moves if move["target"] and move["source"] != move["target"]
    )
    return list(pairs)[:_EARLY] if mode in ("auto", choice.LIVE) else []


def seen_by_all(looked: t.Mapping[str, View]) -> bool:
    """Whether each host told of the machines, and none had to wait for another run, after which what was seen elsewhere
    may not hold."""
    return all(
        isinstance(result.get("machines"), list) and not any(row.get("waited") for row in result["machines"])
        for result in looked.values()
    )


def simple(plan: View, networks: t.Collection[str]) -> bool:
    """Whether the moves of a plan are all that is to be done: no interrupted one is to be settled first, no target
    lacks an image, and none of these networks has to follow a machine.
    """
    followed = any(
        {move["network"], *(move.get("extra_networks") or ())}.intersection(networks) for move in plan["moves"]
    )
    return not followed and not any(plan["settle"]) and not any(move["missing"] for move in plan["moves"])


def apart(waves: t.Iterable[t.Sequence[View]]) -> bool:
    """Whether in no wave a host is an end of two journeys."""
    for wave in waves:
        ends = [journey[which] for journey in wave for which in ("source", "target")]
        if len(set(ends)) < len(ends):
            return False
    return True
