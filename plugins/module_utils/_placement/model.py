# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of placement: rules, what a machine takes, reservations, demands, providers (pure)."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER

ARCHITECTURE = "x86_64"
"""The architecture of an image that doesn't name one."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a provider may promise."""

    host_reserve: int = 256 * 2**20  # bytes of memory that are left to the provider itself
    cpu_overcommit: float = 16.0  # virtual CPUs for each CPU
    memory_overcommit: float = 1.0  # bytes for each byte
    disk_overcommit: float = 1.0  # bytes for each byte
    reservation_bound: float = 0.9  # the part of the CPUs that may be reserved


@dataclasses.dataclass(frozen=True)
class Use:
    """What a machine takes of a provider."""

    cpus: int  # virtual CPUs
    memory: int  # bytes
    disk: int  # bytes, without its image's layer
    digest: str | None = None  # of its image's layer, which machines of a provider share
    layer_size: int = 0  # bytes

    def beyond(self, other: Use) -> Use:
        """How much more this is than ``other``; the layer doesn't count."""
        return Use(max(0, self.cpus - other.cpus), max(0, self.memory - other.memory), max(0, self.disk - other.disk))

    def __bool__(self) -> bool:
        return bool(self.cpus or self.memory or self.disk)


@dataclasses.dataclass(frozen=True)
class Slot:
    """A reservation on a provider. One without a machine is a floor: it is kept for its owner's machines to come."""

    key: str | None  # of its machine
    owner: str | None
    period: int  # microseconds
    slice: int  # microseconds of CPU time in each period, of all its virtual CPUs together
    memory: int  # bytes
    begin: str
    end: str = FOREVER  # excluded

    @property
    def rate(self) -> float:
        """The number of CPUs that it takes."""
        return self.slice / self.period if self.period else 0.0

    def at(self, time: str) -> bool:
        """Whether it is in force at this time."""
        return self.begin <= time < self.end


@dataclasses.dataclass(frozen=True)
class Demand:
    """A machine to be placed, or placed already.

    ``affinity`` and ``anti_affinity`` are names of machines and ``tag:<tag>``, of the same owner.
    """

    name: str
    key: str  # its uuid; made from its name before it has one
    use: Use
    architecture: str = ARCHITECTURE
    network: str | None = None
    goal: str = "balance"
    at: str | None = None  # name of the provider that the store has for it
    exists: bool = False
    owner: str | None = None
    site: str | None = None
    features: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    affinity: frozenset[str] = frozenset()
    anti_affinity: frozenset[str] = frozenset()
    slot: Slot | None = None
    home: str | None = None  # name of its owner's home
    extra_networks: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Provider:
    """A provider as it measured itself, sizes in bytes."""

    name: str
    site: str | None = None
    reachable: bool = True
    trouble: str | None = None  # why it is not reachable
    measured: bool = True  # False: it did not report all of the counts below
    architecture: str = ARCHITECTURE
    cpus: int = 0
    cpus_allocated: int = 0
    memory: int = 0
    memory_free: int = 0
    memory_allocated: int = 0
    disk: int = 0
    disk_free: int = 0
    disk_allocated: int = 0
    digests: frozenset[str] = frozenset()  # of the layers that it has
    networks: frozenset[str] | None = None  # None: it doesn't list them
    machines: frozenset[str] = frozenset()  # uuids of those defined on it, which its allocations include
    running: frozenset[str] = frozenset()  # uuids
    machine_types: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    price: float | None = None
    latency: float | t.Mapping[str, float] | None = None  # one number, or one by home
    speed: float = 100e6  # bytes per second at which images arrive

    def latency_to(self, home: str | None) -> float | None:
        """The latency to a home; ``None`` if it isn't known."""
        if isinstance(self.latency, t.Mapping):
            return self.latency.get(home or "")
        return self.latency


def newest_machine_type(providers: t.Iterable[Provider]) -> str | None:
    """The newest ``pc-q35`` machine type that all reachable providers have; with it machines can move between them."""
    types = [provider.machine_types for provider in providers if provider.reachable and provider.measured]
    versions = {}
    for name in frozenset.intersection(*types) if types else ():
        match = re.fullmatch(r"pc-q35-(\d{1,4})\.(\d{1,4})", name, re.ASCII)
        if match:
            versions[int(match.group(1)), int(match.group(2))] = name
    return versions[max(versions)] if versions else None
