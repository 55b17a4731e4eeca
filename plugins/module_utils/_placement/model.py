# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What placement reckons with: providers as measured, what machines use, what is still free (pure)."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

ARCHITECTURE = "x86_64"
"""What an image is made for that doesn't say it."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """Bounds: bytes of memory left to each provider itself, and how many virtual CPUs one of its CPUs may carry."""

    host_reserve: int = 256 * 2**20
    cpu_overcommit: float = 16.0


@dataclasses.dataclass(frozen=True)
class Use:
    """What a machine takes: CPUs, bytes of memory, bytes of disk, and its image's layer (counted once a provider, if not there)."""

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
class Demand:
    """A machine to be placed. ``key`` is its uuid (its name before it has one), ``at`` the provider that the store has for it."""

    name: str
    key: str
    use: Use
    architecture: str = ARCHITECTURE
    network: str | None = None
    goal: str = "balance"
    at: str | None = None
    exists: bool = False


@dataclasses.dataclass(frozen=True)
class Provider:
    """A provider as it measured itself, sizes in bytes. ``networks`` is ``None`` where it doesn't list them; without ``measured``
    nothing is known of it. ``trouble`` is why it is not reachable. ``machines`` are the uuids of those defined on it, which its allocations include."""

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
    price: float | None = None
    latency: float | None = None


class Account:
    """What is free on one provider, with what is held on it: machines that are placed there but not defined yet."""

    def __init__(self, provider: Provider, rules: Rules) -> None:
        self.provider = provider
        self.rules = rules
        self._held: dict[str, Use] = {}
        self._layers: dict[str, tuple[int, int]] = {}  # of each layer still to come: machines that need it, bytes
        self._sums = Use(0, 0, 0)

    def hold(self, key: str, use: Use) -> None:
        """Count a machine; one that is counted already is counted anew."""
        self.release(key)
        self._held[key] = use
        self._sum(use, 1, self._layer_bytes(use))
        if not self.has_image(use) or use.digest in self._layers:
            users, size = self._layers.get(use.digest or "", (0, use.layer_size))
            self._layers[use.digest or ""] = (users + 1, size)

    def release(self, key: str) -> Use | None:
        """Count the machine no longer; returns what was held for it."""
        use = self._held.pop(key, None)
        if use is None:
            return None
        users, size = self._layers.pop(use.digest or "", (0, 0))
        if users > 1:
            self._layers[use.digest or ""] = (users - 1, size)
        self._sum(use, -1, size if users == 1 else 0)
        return use

    def _sum(self, use: Use, sign: int, layers: int) -> None:
        sums = self._sums
        self._sums = Use(sums.cpus + sign * use.cpus, sums.memory + sign * use.memory, sums.disk + sign * (use.disk + layers))

    def has_image(self, use: Use) -> bool:
        """Whether the image needn't be brought: it lies there, or comes for another machine."""
        return not use.digest or use.digest in self.provider.digests or use.digest in self._layers

    def _layer_bytes(self, use: Use) -> int:
        """What the image's layer would add now."""
        return 0 if self.has_image(use) else use.layer_size

    @property
    def cpus_free(self) -> int:
        return int(self.provider.cpus * self.rules.cpu_overcommit) - self.provider.cpus_allocated - self._sums.cpus

    @property
    def memory_free(self) -> int:
        """The lesser of what is available now and of what isn't promised: guests take their memory only as they touch it."""
        provider = self.provider
        return (
            min(provider.memory_free, provider.memory - provider.memory_allocated) - self.rules.host_reserve - self._sums.memory
        )

    @property
    def disk_free(self) -> int:
        """The same for disks, which are thin as well."""
        provider = self.provider
        return min(provider.disk_free, provider.disk - provider.disk_allocated) - self._sums.disk

    def share(self, use: Use) -> float:
        """How full the provider would be with ``use``: the larger of its shares of memory and CPU, 1 is full."""
        provider = self.provider
        memory = (provider.memory_allocated + self._sums.memory + use.memory) / max(1, provider.memory)
        cpus = (provider.cpus_allocated + self._sums.cpus + use.cpus) / max(1.0, provider.cpus * self.rules.cpu_overcommit)
        return max(memory, cpus)

    def lack(self, use: Use) -> str | None:
        """What there isn't enough of, in words; ``None`` if ``use`` fits. What isn't asked for isn't judged."""
        disk = use.disk + self._layer_bytes(use)
        if use.memory and use.memory > self.memory_free:
            return f"needs {format_size(use.memory)} of memory, {format_size(max(0, self.memory_free))} free"
        if use.cpus and use.cpus > self.cpus_free:
            carries = f"{self.provider.cpus} CPUs carry {self.rules.cpu_overcommit:g} each"
            return f"needs {use.cpus} virtual CPUs, {max(0, self.cpus_free)} free ({carries})"
        if disk and disk > self.disk_free:
            return f"needs {format_size(disk)} of disk, {format_size(max(0, self.disk_free))} free"
        return None


def newest_machine_type(providers: t.Iterable[Provider]) -> str | None:
    """The newest ``pc-q35`` machine type that all reachable providers have, so that machines can move between them."""
    types = [provider.machine_types for provider in providers if provider.reachable and provider.measured]
    versions = {}
    for name in frozenset.intersection(*types) if types else ():
        match = re.fullmatch(r"pc-q35-(\d{1,4})\.(\d{1,4})", name, re.ASCII)
        if match:
            versions[int(match.group(1)), int(match.group(2))] = name
    return versions[max(versions)] if versions else None
