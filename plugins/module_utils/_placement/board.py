# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board: accounts of providers, places of machines, affinities and quotas; and what fits where (pure)."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.account import Account
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.bonds import Bonds, check_places, tie
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Rules, Slot, Use
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

UNREACHABLE = "is not reachable in this run"
NO_NETWORK = "has no active network"
"""The beginning of the reason against a provider without the machine's network."""

ANYBODY = "*"
"""The owner of the quota for those who have none of their own. No owner can have this name."""

Held = t.Mapping[str, t.Mapping[str, Use]]
"""What machines take, by the name of their provider and their key."""


@dataclasses.dataclass(frozen=True)
class Quota:
    """What an owner's machines, placed or existing, may have in total; ``None`` is no bound."""

    vcpus: int | None = None
    memory: int | None = None  # bytes
    disk: int | None = None  # bytes
    machines: int | None = None


@dataclasses.dataclass(frozen=True)
class Past:
    """What is known before anything is chosen."""

    held: Held = dataclasses.field(default_factory=dict)  # what each placed machine takes
    stored: t.Mapping[str, Use] = dataclasses.field(default_factory=dict)  # of existing machines as last seen, by key
    others: t.Sequence[Demand] = ()  # placed machines that are not to be placed now
    slots: t.Mapping[str, t.Sequence[Slot]] = dataclasses.field(default_factory=dict)  # by the name of the provider
    quotas: t.Mapping[str, Quota] = dataclasses.field(default_factory=dict)  # by owner


class Board:
    """What a choice depends on, and what it changes."""

    def __init__(self, demands: t.Sequence[Demand], providers: t.Sequence[Provider], past: Past, rules: Rules) -> None:
        self.rules = rules
        self.past = past
        self.providers = {provider.name: provider for provider in providers}
        self.accounts = {name: Account(self.providers[name], rules) for name in sorted(self.providers)}
        self.places: dict[str, str] = {other.key: other.at for other in past.others if other.at}
        self.bonds: Bonds = tie(demands, past.others)
        self.used: dict[str, list[int]] = {}
        owners = {each.key: each.owner for each in (*past.others, *demands)}
        self.whole: dict[str, Use] = {}
        for name, uses in past.held.items():
            for key, use in uses.items():
                self.whole[key] = use
                self._charge(owners.get(key), use, 1)
                if name in self.accounts:
                    there = key in self.providers[name].machines
                    more = use.beyond(past.stored.get(key, use)) if there else use
                    self.accounts[name].hold(key, more, owner=owners.get(key), whole=use)
        for name, slots in past.slots.items():
            for slot in slots if name in self.accounts else ():
                self.accounts[name].reserve(slot)

    def _charge(self, owner: str | None, use: Use, machines: int) -> None:
        sums = self.used.setdefault(owner or "", [0, 0, 0, 0])
        for index, amount in enumerate((use.cpus, use.memory, use.disk, machines)):
            sums[index] += amount

    def over_quota(self, *demands: Demand) -> GridError | None:
        """The error if an owner would exceed his quota with these demands. What he has already stays his."""
        owner = demands[0].owner
        quota = self.past.quotas.get(owner or "", self.past.quotas.get(ANYBODY))
        if quota is None:
            return None
        used, asked = self.used.get(owner or "", [0, 0, 0, 0]), [0, 0, 0, 0]
        for demand in demands:
            known = self.whole.get(demand.key)
            more = demand.use if known is None else demand.use.beyond(known)
            for index, amount in enumerate((more.cpus, more.memory, more.disk, 1 if known is None else 0)):
                asked[index] += amount
        shown: tuple[t.Callable[[int], str], ...] = (str, format_size, format_size, str)
        for field, show, has, more_of_it in zip(("vcpus", "memory", "disk", "machines"), shown, used, asked):
            allowed = getattr(quota, field)
            if allowed is not None and more_of_it and has + more_of_it > allowed:
                return GridError(
                    "quota_exceeded",
                    f"{owner} may have {show(allowed)} ({field}), "
                    f"has {show(has)} and would get {show(more_of_it)} more",
                    remedy="Order less, retire a machine of this owner, "
                    "or raise the quota (module virtuoso.grid.quota)",
                    owner=owner,
                    field=field,
                    allowed=allowed,
                    used=has,
                    asked=more_of_it,
                )
        return None

    def hold(self, demand: Demand, name: str, more: Use | None = None) -> None:
        """Put a machine on a provider.

        :param more: what it takes beyond what the provider has measured; everything by default.
        """
        known = self.whole.get(demand.key)
        use = demand.use if known is None else demand.use.beyond(known)
        self._charge(demand.owner, use, 1 if known is None else 0)
        self.whole[demand.key] = demand.use
        self.places[demand.key] = name
        self.accounts[name].hold(
            demand.key, demand.use if more is None else more, owner=demand.owner, whole=demand.use, slot=demand.slot
        )

    def release(self, demand: Demand, name: str) -> None:
        """Undo :meth:`hold` for a machine that was nowhere before."""
        use = self.whole.pop(demand.key)
        self._charge(demand.owner, Use(-use.cpus, -use.memory, -use.disk), -1)
        del self.places[demand.key]
        self.accounts[name].release(demand.key)

    def barred(self, name: str, demand: Demand) -> str | None:
        """Why this provider can't hold the machine, whatever is free there; ``None`` if nothing bars it.

        :raises GridError: ``impossible_affinity``.
        """
        provider = self.providers[name]
        if not provider.reachable:
            return f"{UNREACHABLE}: {provider.trouble}" if provider.trouble else UNREACHABLE
        if not provider.measured:
            return "did not report what it has"
        if provider.architecture != demand.architecture:
            return f"is {provider.architecture}, the image is made for {demand.architecture}"
        wanted = demand.extra_networks | ({demand.network} if demand.network is not None else frozenset())
        if provider.networks is not None and not wanted <= provider.networks:
            missing = ", ".join(sorted(wanted - provider.networks))
            return f"{NO_NETWORK} {missing} (it has {', '.join(sorted(provider.networks)) or 'none'})"
        if demand.site is not None and provider.site != demand.site:
            return f"is at site {provider.site or 'unknown'}, not at {demand.site}"
        lacking = sorted(demand.features - provider.features)
        if lacking:
            return f"lacks the feature {', '.join(lacking)}"
        return self._bound(name, demand)

    def _bound(self, name: str, demand: Demand) -> str | None:
        """Why affinities keep the machine from this provider."""
        bonds = self.bonds
        if demand.key not in bonds.together and demand.key not in bonds.apart:
            return None
        required = check_places(bonds, demand.key, self.places)
        if required is not None and required != name:
            return f"is not {required}, where the machines are that it must be with"
        present = self.accounts[name].keys
        for key in sorted(bonds.apart.get(demand.key, ()), key=lambda key: bonds.names.get(key, key)):
            if key in present and self.places.get(key, name) == name:
                return f"has {bonds.names.get(key, key)}, which it must be apart from"
        return None

    def unfit(self, name: str, demand: Demand) -> str | None:
        """Why this provider can't hold the machine, the first reason that is found; ``None`` if it can.

        :raises GridError: ``impossible_affinity``.
        """
        account = self.accounts[name]
        reason = self.barred(name, demand) or account.lack(demand.use, demand.owner)
        if reason is None and demand.slot is not None:
            reason = account.refuse(demand.slot)
        return reason

    def unfit_all(self, name: str, bundle: t.Sequence[Demand]) -> str | None:
        """The same for machines that must be together. The board doesn't change."""
        if len(bundle) == 1:
            return self.unfit(name, bundle[0])
        placed: list[Demand] = []
        reason = None
        for demand in bundle:
            reason = self.unfit(name, demand)
            if reason is not None:
                reason = f"{reason} (for {demand.name}; {', '.join(each.name for each in bundle)} must be together)"
                break
            self.hold(demand, name)
            placed.append(demand)
        for demand in placed:
            self.release(demand, name)
        return reason
