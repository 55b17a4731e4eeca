# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of one provider: what is free on it now, and what can be reserved at any later moment (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Provider, Rules, Slot, Use
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

_SLACK = 1e-9
"""Rates are fractions: a sum may exceed its bound by so much, because of rounding."""


class Account:
    """What is free on one provider, minus what is held on it for machines that are placed there but not defined yet."""

    def __init__(self, provider: Provider, rules: Rules) -> None:
        self.provider = provider
        self.rules = rules
        self._held: dict[str, Use] = {}
        self._layers: dict[
            str, tuple[int, int]
        ] = {}  # by digest, of layers still to come: number of machines that need it, bytes
        self.sums = Use(0, 0, 0)
        self._slots: dict[str, Slot] = {}
        self._floors: list[Slot] = []
        self._owners: dict[str, tuple[str | None, Use]] = {}

    def hold(
        self, key: str, use: Use, *, owner: str | None = None, whole: Use | None = None, slot: Slot | None = None
    ) -> None:
        """Count a machine. If it is counted already, its new use replaces the old one.

        :param use: what it takes that the provider's own measurements don't include.
        :param whole: all that it takes; ``use`` by default.
        """
        self.release(key)
        self._held[key] = use
        self._owners[key] = (owner, whole or use)
        if slot is not None:
            self._slots[key] = slot
        self._sum(use, 1, self._layer_bytes(use))
        if not self.has_image(use) or use.digest in self._layers:
            users, size = self._layers.get(use.digest or "", (0, use.layer_size))
            self._layers[use.digest or ""] = (users + 1, size)

    def release(self, key: str) -> Use | None:
        """Stop counting a machine; returns what was held for it."""
        use = self._held.pop(key, None)
        self._owners.pop(key, None)
        self._slots.pop(key, None)
        if use is None:
            return None
        users, size = self._layers.pop(use.digest or "", (0, 0))
        if users > 1:
            self._layers[use.digest or ""] = (users - 1, size)
        self._sum(use, -1, size if users == 1 else 0)
        return use

    def reserve(self, slot: Slot) -> None:
        """Count a reservation, of a machine or as an owner's floor."""
        if slot.key is None:
            self._floors.append(slot)
        else:
            self._slots[slot.key] = slot

    def withdraw(self, slot: Slot) -> None:
        """Stop counting an owner's floor."""
        self._floors.remove(slot)

    def _sum(self, use: Use, sign: int, layers: int) -> None:
        sums = self.sums
        self.sums = Use(
            sums.cpus + sign * use.cpus, sums.memory + sign * use.memory, sums.disk + sign * (use.disk + layers)
        )

    @property
    def keys(self) -> t.AbstractSet[str]:
        """The keys of machines that are on the provider or held there."""
        return self._held.keys() | self.provider.machines

    @property
    def slots(self) -> list[Slot]:
        """All reservations on the provider."""
        return [*self._slots.values(), *self._floors]

    def slot_of(self, key: str) -> Slot | None:
        """A machine's reservation here."""
        return self._slots.get(key)

    @property
    def floored(self) -> frozenset[str | None]:
        """The owners with a floor here."""
        return frozenset(slot.owner for slot in self._floors)

    @property
    def coming(self) -> t.AbstractSet[str]:
        """The digests of layers that will be transferred for what is held."""
        return self._layers.keys()

    def has_image(self, use: Use) -> bool:
        """Whether the image needn't be transferred: the provider has it, or gets it for another machine."""
        return not use.digest or use.digest in self.provider.digests or use.digest in self._layers

    def _layer_bytes(self, use: Use) -> int:
        """The bytes that the image's layer would add now."""
        return 0 if self.has_image(use) else use.layer_size

    def _kept(self, owner: str | None, more: Use) -> Use:
        """What is still kept for owners with floors, at the worst moment, after ``owner`` takes ``more``.

        Whatever an owner has on the provider uses up his floor.
        """
        if not self._floors:
            return Use(0, 0, 0)
        cpus, memory = [0], [0]
        for moment in {slot.begin for slot in self._floors}:
            rates: dict[str | None, float] = {}
            sizes: dict[str | None, int] = {}
            for slot in self._floors:
                if slot.at(moment):
                    rates[slot.owner] = rates.get(slot.owner, 0.0) + slot.rate
                    sizes[slot.owner] = sizes.get(slot.owner, 0) + slot.memory
            used = {who: self._used_by(who, more if who == owner else Use(0, 0, 0)) for who in rates}
            ratio = self.rules.cpu_overcommit
            cpus.append(sum(max(0, round(rates[who] * ratio) - used[who].cpus) for who in rates))
            memory.append(sum(max(0, sizes[who] - used[who].memory) for who in rates))
        return Use(max(cpus), max(memory), 0)

    def _used_by(self, owner: str | None, more: Use) -> Use:
        uses = [whole for who, whole in self._owners.values() if who == owner]
        return Use(sum(use.cpus for use in uses) + more.cpus, sum(use.memory for use in uses) + more.memory, 0)

    def free(self, owner: str | None = None, more: Use = Use(0, 0, 0)) -> Use:
        """What a machine of this owner can get.

        Guests take memory and disk only as they touch them, so this is the lesser of what is free now and what isn't
        promised, minus what is held and what is kept for owners with floors.

        :param more: what the owner is about to take, which uses up his floor.
        """
        provider, rules, sums, kept = self.provider, self.rules, self.sums, self._kept(owner, more)
        memory = min(
            int(provider.memory_free * rules.memory_overcommit),
            int(provider.memory * rules.memory_overcommit) - provider.memory_allocated,
        )
        disk = min(
            int(provider.disk_free * rules.disk_overcommit),
            int(provider.disk * rules.disk_overcommit) - provider.disk_allocated,
        )
        cpus = int(provider.cpus * rules.cpu_overcommit) - provider.cpus_allocated
        return Use(
            cpus - sums.cpus - kept.cpus, memory - rules.host_reserve - sums.memory - kept.memory, disk - sums.disk
        )

    def share(self, use: Use) -> float:
        """How full the provider would be with ``use``: the larger one of its shares of memory and CPU; 1 is full."""
        provider, rules = self.provider, self.rules
        memory = (provider.memory_allocated + self.sums.memory + use.memory) / max(
            1.0, provider.memory * rules.memory_overcommit
        )
        cpus = (provider.cpus_allocated + self.sums.cpus + use.cpus) / max(1.0, provider.cpus * rules.cpu_overcommit)
        return max(memory, cpus)

    def lack(self, use: Use, owner: str | None = None) -> str | None:
        """What there isn't enough of, in words; ``None`` if ``use`` fits. What isn't needed isn't checked."""
        free = self.free(owner, use)
        disk = use.disk + self._layer_bytes(use)
        if use.memory and use.memory > free.memory:
            return f"needs {format_size(use.memory)} of memory, {format_size(max(0, free.memory))} free"
        if use.cpus and use.cpus > free.cpus:
            carries = f"{self.provider.cpus} CPUs carry {self.rules.cpu_overcommit:g} each"
            return f"needs {use.cpus} virtual CPUs, {max(0, free.cpus)} free ({carries})"
        if disk and disk > free.disk:
            return f"needs {format_size(disk)} of disk, {format_size(max(0, free.disk))} free"
        return None

    @property
    def reservable(self) -> float:
        """The number of CPUs that may be reserved in total.

        One processor meets every deadline under earliest-deadline-first up to a utilisation of 1 (C. L. Liu, J. W.
        Layland, Scheduling algorithms for multiprogramming in a hard-real-time environment, J. ACM 20 (1), 1973,
        theorem 7). Of m processors the sum may be m with bounded tardiness (U. C. Devi, J. H. Anderson, RTSS 2005),
        which is the test of Linux's SCHED_DEADLINE as well (kernel documentation, scheduler/sched-deadline, section 5).
        The rest to 1 is left to the host.
        """
        return self.provider.cpus * self.rules.reservation_bound

    @property
    def pledgeable(self) -> int:
        """The bytes of memory that may be reserved in total. Reservations are never overcommitted."""
        return self.provider.memory - self.rules.host_reserve

    def refuse(self, wanted: Slot) -> str | None:
        """Why a reservation can't be admitted: too much would be reserved at some moment of it. ``None`` if it can."""
        others = [slot for slot in self.slots if slot.key is None or slot.key != wanted.key]
        overlapping = [slot for slot in others if slot.begin < wanted.end and wanted.begin < slot.end]
        # The sums can only grow when a reservation begins.
        for moment in sorted({wanted.begin, *(max(slot.begin, wanted.begin) for slot in overlapping)}):
            now = [slot for slot in overlapping if slot.at(moment)]
            rate, memory = pledged([*now, wanted])
            if rate > self.reservable + _SLACK:
                free = max(0.0, self.reservable - pledged(now)[0])
                bound = f"{self.reservable:.3g} of {self.provider.cpus} may be reserved"
                return f"needs {wanted.rate:.3g} CPUs reserved, {free:.3g} left at {moment} ({bound})"
            if memory > self.pledgeable:
                left = format_size(max(0, self.pledgeable - pledged(now)[1]))
                return f"needs {format_size(wanted.memory)} of memory reserved, {left} left at {moment}"
        return None


def pledged(slots: t.Iterable[Slot]) -> tuple[float, int]:
    """CPUs and bytes of memory that reservations take at one moment. An owner's machines use up his floors."""
    sums: dict[tuple[str | None, bool], tuple[float, int]] = {}
    for slot in slots:
        rate, memory = sums.get((slot.owner, slot.key is None), (0.0, 0))
        sums[slot.owner, slot.key is None] = (rate + slot.rate, memory + slot.memory)
    nothing = (0.0, 0)
    pairs = [
        (sums.get((owner, True), nothing), sums.get((owner, False), nothing))
        for owner in {owner for owner, dummy in sums}
    ]
    return sum(max(floor[0], used[0]) for floor, used in pairs), sum(max(floor[1], used[1]) for floor, used in pairs)
