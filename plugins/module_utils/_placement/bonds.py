# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Affinity: which machines must share a provider, and which must not (pure).

Both work in either direction: a machine that is placed already keeps away another one that it must be apart from. Only
machines of the same owner count, so nobody's order restricts the orders of others.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand

TAG = "tag:"


@dataclasses.dataclass(frozen=True)
class Bonds:
    """Affinities by the machine's key."""

    together: t.Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)  # must share its provider
    apart: t.Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)  # must not
    names: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    errors: t.Mapping[str, GridError] = dataclasses.field(default_factory=dict)  # why its affinity can't be met


class _Directory:
    """The machines of each owner, by name and by tag."""

    def __init__(self, machines: t.Iterable[Demand]) -> None:
        self._keys: dict[tuple[str | None, str], list[str]] = {}
        for each in machines:
            for term in (each.name, *(TAG + tag for tag in each.tags)):
                self._keys.setdefault((each.owner, term), []).append(each.key)

    def meant(self, machine: Demand, term: str) -> list[str]:
        """The keys of other machines of the same owner that the term names."""
        return [key for key in self._keys.get((machine.owner, term), ()) if key != machine.key]


def _components(keys: t.Iterable[str], edges: t.Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """The connected component of each key."""
    of = {key: [key] for key in keys}
    for one, other in edges:
        if of[one] is not of[other]:
            small, large = sorted((of[one], of[other]), key=len)
            large.extend(small)
            for key in small:
                of[key] = large
    sets = {id(members): frozenset(members) for members in of.values()}
    return {key: sets[id(members)] for key, members in of.items()}


def _unknown(demand: Demand, term: str) -> GridError:
    return GridError(
        "affinity_unknown",
        f"it must be with {term}, and {demand.owner or 'nobody'} has no such machine in this run or placed",
        remedy="Order that machine as well, or take it out of affinity",
        affinity=term,
    )


def _impossible(text: str, names: t.Iterable[str]) -> GridError:
    return GridError(
        "impossible_affinity",
        text,
        remedy="Take one of the two wishes out of affinity or anti_affinity",
        machines=sorted(names),
    )


def tie(demands: t.Sequence[Demand], others: t.Iterable[Demand] = ()) -> Bonds:
    """The affinities between machines to be placed and others, which are placed already."""
    machines = {each.key: each for each in (*others, *demands)}
    wishing = [each for each in machines.values() if each.affinity or each.anti_affinity]
    if not wishing:
        return Bonds()
    directory, errors, wanted = _Directory(machines.values()), {}, {demand.key for demand in demands}
    edges, fences = [], []
    for each in wishing:
        for term in sorted(each.affinity):
            meant = directory.meant(each, term)
            edges += [(each.key, key) for key in meant]
            if not meant and not term.startswith(TAG) and term != each.name and each.key in wanted:
                errors[each.key] = _unknown(each, term)
        fences += [(each.key, key) for term in sorted(each.anti_affinity) for key in directory.meant(each, term)]
    together = _components(machines, edges)
    apart: dict[str, set[str]] = {}
    for one, other in fences:
        if together[one] is together[other]:
            names = sorted((machines[one].name, machines[other].name))
            text = f"{' and '.join(names)} must be on one provider and must not"
            # An error for each, because each machine's result adds its own context to it.
            errors.update({key: _impossible(text, names) for key in together[one] & wanted if key not in errors})
        for key, far in ((one, other), (other, one)):
            apart.setdefault(key, set()).add(far)
    return Bonds(
        {key: members for key, members in together.items() if len(members) > 1},
        {key: frozenset(far) for key, far in apart.items()},
        {key: each.name for key, each in machines.items()},
        errors,
    )


def check_places(bonds: Bonds, key: str, places: t.Mapping[str, str]) -> str | None:
    """The provider that a machine must be on because others that it must be with are there; ``None`` if it is free.

    :param places: the provider of each placed machine, by key.
    :raises GridError: ``impossible_affinity``.
    """
    members = sorted(member for member in bonds.together.get(key, ()) if member != key and member in places)
    there = {places[member]: member for member in members}
    if len(there) > 1:
        where = " and ".join(f"{bonds.names[member]} is on {name}" for name, member in sorted(there.items()))
        raise _impossible(
            f"it must be with machines on different providers: {where}", [bonds.names[member] for member in members]
        )
    return next(iter(there), None)
