# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What placement reckons with: bounds, machines to be placed, providers as measured (pure)."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER

ARCHITECTURE = "x86_64"
"""What an image is made for that doesn't say it."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """Bounds: bytes of memory left to each provider itself, how much more than it has a provider may promise of CPUs,
    memory and disk, and which part of its CPUs may be reserved."""

    host_reserve: int = 256 * 2**20
    cpu_overcommit: float = 16.0
    memory_overcommit: float = 1.0
    disk_overcommit: float = 1.0
    reservation_bound: float = 0.9


@dataclasses.dataclass(frozen=True)
class Use:
    """What a machine takes: CPUs, bytes of memory, bytes of disk, and its image's layer (counted once a provider, if
    not there)."""

    cpus: int
    memory: int
    disk: int
    digest: str | None = None
    layer_size: int = 0

    def beyond(self, other: Use) -> Use:
        """How much more this is than ``other``; its layer is there already."""
        return Use(max(0, self.cpus - other.cpus), max(0, self.memory - other.memory), max(0, self.disk - other.disk))

    def __bool__(self) -> bool:
        return bool(self.cpus or self.memory or self.disk)


@dataclasses.dataclass(frozen=True)
class Slot:
    """A reservation on a provider: ``slice`` of CPU time in each ``period`` (microseconds, of all its virtual CPUs
    together) and bytes of memory, from ``begin`` until before ``end``. ``key`` is its machine's; one without a machine
    is its owner's floor there."""

    key: str | None
    owner: str | None
    period: int
    slice: int
    memory: int
    begin: str
    end: str = FOREVER

    @property
    def rate(self) -> float:
        """How many CPUs it takes."""
        return self.slice / self.period if self.period else 0.0

    def at(self, time: str) -> bool:
        """Whether it holds at this time."""
        return self.begin <= time < self.end


@dataclasses.dataclass(frozen=True)
class Demand:
    """A machine to be placed, or placed already. ``key`` is its uuid (its name before it has one), ``at`` the provider
    that the store has for it. ``affinity`` and ``anti_affinity`` are names of machines and ``tag:<tag>``, of the same
    owner."""

    name: str
    key: str
    use: Use
    architecture: str = ARCHITECTURE
    network: str | None = None
    goal: str = "balance"
    at: str | None = None
    exists: bool = False
    owner: str | None = None
    site: str | None = None
    features: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    affinity: frozenset[str] = frozenset()
    anti_affinity: frozenset[str] = frozenset()
    slot: Slot | None = None
    home: str | None = None
    extra_networks: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Provider:
    """A provider as it measured itself, sizes in bytes. ``networks`` is ``None`` where it doesn't list them; without
    ``measured`` nothing is known of it. ``trouble`` is why it is not reachable. ``machines`` are the uuids of those
    defined on it, which its allocations include. ``latency`` is one number, or one by home; ``speed`` is how many bytes
    a second images come with."""

    name: str
    site: str | None = None
    reachable: bool = True
    trouble: str | None = None
    measured: bool = True
    architecture: str = ARCHITECTURE
    cpus: int = 0
    cpus_allocated: int = 0
    memory: int = 0
    memory_free: int = 0
    memory_allocated: int = 0
    disk: int = 0
    disk_free: int = 0
    disk_allocated: int = 0
    digests: frozenset[str] = frozenset()
    networks: frozenset[str] | None = None
    machines: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    machine_types: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    price: float | None = None
    latency: float | t.Mapping[str, float] | None = None
    speed: float = 100e6

    def latency_to(self, home: str | None) -> float | None:
        """The latency to a home, or the one that is the same to all; ``None`` where it isn't known."""
        if isinstance(self.latency, t.Mapping):
            return self.latency.get(home or "")
        return self.latency


def newest_machine_type(providers: t.Iterable[Provider]) -> str | None:
    """The newest ``pc-q35`` machine type that all reachable providers have, so that machines can move between them."""
    types = [provider.machine_types for provider in providers if provider.reachable and provider.measured]
    versions = {}
    for name in frozenset.intersection(*types) if types else ():
        match = re.fullmatch(r"pc-q35-(\d{1,4})\.(\d{1,4})", name, re.ASCII)
        if match:
            versions[int(match.group(1)), int(match.group(2))] = name
    return versions[max(versions)] if versions else None
