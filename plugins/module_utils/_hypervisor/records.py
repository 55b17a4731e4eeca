# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that a domain is made of and read as: what libvirt has of a machine, and what its metadata says of it.

They are dictionaries at run time, because they come from JSON and module arguments, and go there. Sizes are bytes,
times microseconds, unless a field says something else. ``total=False`` marks fields that may be left out.
"""

from __future__ import annotations

import typing as t

# Parts


class Export(t.TypedDict):
    """An export that a disk pages from: the host's address, the port, and the export's name, which is a digest."""

    host: str
    port: int
    export: str


class SizedExport(Export):
    """An export, and the virtual size of its disk."""

    virtual_size: int


class CpuLimit(t.TypedDict):
    """``quota`` microseconds that each virtual CPU may use in each ``period`` of microseconds."""

    period: int
    quota: int


class DiskLimits(t.TypedDict, total=False):
    """What a disk may read and write at most in a second: bytes and requests. A field left out is no limit."""

    read_bytes: int
    write_bytes: int
    read_iops: int
    write_iops: int


class Display(t.TypedDict):
    """``type`` is vnc or none; ``port`` is ``None`` while the machine doesn't run."""

    type: str
    host: t.Optional[str]
    port: t.Optional[int]


class Image(t.TypedDict):
    """An image's reference, and the digest of its topmost layer."""

    name: str
    digest: str


class User(t.TypedDict):
    """A user that cloud-init makes; keys in the form of ``authorized_keys``."""

    name: str
    shell: str
    sudo: bool
    ssh_authorized_keys: t.List[str]


class _AddressMethod(t.TypedDict):
    method: str
    ip: str


class Address(_AddressMethod, total=False):
    """An ordered IPv4 address. ``method`` is dhcp, with ``ip``, or static, with ``ip`` as address and prefix."""

    gateway: str
    nameservers: t.List[str]
    search: t.List[str]


Reservation = t.TypedDict(
    "Reservation", {"period": int, "slice": int, "memory": int, "from": str, "to": str}, total=False
)
"""``slice`` microseconds of each virtual CPU in each ``period``, and ``memory``, in the time from ``from`` to ``to``
(as the store writes times; without them always)."""


class Performance(t.TypedDict, total=False):
    """What an order says of performance. ``cpu_shares`` is a weight."""

    cpu_shares: int
    disk_io: DiskLimits
    reservation: Reservation


class Moving(t.TypedDict):
    """The mark of a machine on its way to host ``to``: the generation that its copy there has, the attempt's name, and
    whether the machine was started with its provider."""

    generation: int
    to: str
    attempt: str
    autostart: bool


class Card(t.NamedTuple):
    """A network card's MAC address, and its network's MTU where that is known."""

    mac: str
    mtu: t.Optional[int] = None


# What a machine should be


class Growth(t.TypedDict, total=False):
    """Fields that an order has only where it says something of them. ``vcpus_max`` and ``memory_max`` are what the
    machine can grow to while it runs."""

    vcpus_max: t.Optional[int]
    memory_max: t.Optional[int]
    extra_networks: t.List[str]
    boot: t.List[str]
    autostart: t.Optional[bool]
    description: t.Optional[str]


class Wishes(Growth, total=False):
    """The fields of an order that only placement uses, or that can't be read from the domain."""

    architecture: str
    features: t.List[str]
    affinity: t.List[str]
    anti_affinity: t.List[str]
    performance: Performance
    ready: str


class OrderedWishes(Wishes, total=False):
    """The wishes as a domain carries them: with the site that was ordered."""

    site: str


class _WithAddress(Wishes, total=False):
    address: Address


class Ordered(_WithAddress):
    """The fields that an order, and a machine made of it, share. ``disk`` is ``None`` for the image's own size."""

    name: str
    owner: str
    vcpus: int
    memory: int
    disk: t.Optional[int]
    packages: t.List[str]
    users: t.List[User]
    network: str
    display: str
    goal: str
    tags: t.List[str]
    start: str


class WantedDomain(Ordered):
    """What a machine on this host should be: its order, and what was decided for it.

    ``cpu_shares`` is ``None`` for the host's default; ``cards`` are those on ``extra_networks``; ``pages`` is the
    export that it pages from while its image isn't here; ``user`` and ``python`` are the image's login user and
    interpreter.
    """

    image: Image
    uuid: str
    site: str
    ordered_site: t.Optional[str]
    generation: int
    user: t.Optional[str]
    python: t.Optional[str]
    cpu_shares: t.Optional[int]
    cpu_limit: t.Optional[CpuLimit]
    disk_io: t.Optional[DiskLimits]
    mac: str
    cards: t.Dict[str, Card]
    mtu: t.Optional[int]
    pages: t.Optional[SizedExport]
    display_password: t.Optional[str]


class Files(t.TypedDict):
    """The files of a new domain: ``layers`` are those that its disk is an overlay on, the nearest first; or it is an
    overlay on the export ``pages``."""

    disk_path: str
    layers: t.List[str]
    pages: t.Optional[SizedExport]


class NewDomain(WantedDomain):
    """What :func:`domain_xml.build` makes a domain of. ``virtualization`` is kvm or qemu."""

    virtualization: str
    machine_type: str
    seed_path: str
    disk_path: str
    layers: t.List[str]


# What a machine is


class Metadata(t.TypedDict):
    """What a domain carries of its machine; text is ``None`` where the domain has none.

    ``autostart`` says that a hibernated machine is to be started with its provider again once it is awake. ``started``
    says that it has booted. ``moving`` is set while the machine is on its way to another host: a definition that has it
    can't be started.
    """

    uuid: t.Optional[str]
    name: t.Optional[str]
    owner: t.Optional[str]
    site: t.Optional[str]
    network: t.Optional[str]
    goal: t.Optional[str]
    user: t.Optional[str]
    python: t.Optional[str]
    generation: int
    image: Image
    tags: t.List[str]
    packages: t.List[str]
    users: t.List[User]
    address: t.Optional[Address]
    wishes: OrderedWishes
    started: bool
    autostart: bool
    moving: t.Optional[Moving]


class Hardware(t.TypedDict):
    """What can change while a machine runs. ``memory_base`` is what it was started with, ``memory_ceiling`` what it can
    have without another start, ``memory_max`` the same where memory can be added; ``vcpus_removable`` and
    ``free_ports`` are counts."""

    vcpus: int
    vcpus_max: int
    vcpus_removable: int
    memory: int
    memory_max: t.Optional[int]
    memory_base: int
    memory_ceiling: int
    balloon: bool
    extra_networks: t.List[str]
    free_ports: int
    boot: t.List[str]


class DomainModel(Hardware):
    """A domain as :func:`domain_xml.read` has it; ``None`` where the domain says nothing of a field."""

    network: t.Optional[str]
    display: str
    display_password: t.Optional[str]
    cpu_shares: t.Optional[int]
    cpu_limit: t.Optional[CpuLimit]
    disk_io: t.Optional[DiskLimits]
    description: t.Optional[str]
    mac: t.Optional[str]
    machine_type: t.Optional[str]
    virtualization: t.Optional[str]
    disk_path: t.Optional[str]
    pages: t.Optional[Export]


class MachineModel(DomainModel):
    """The same, and whether libvirt starts the machine with its host; ``None`` where that doesn't count."""

    autostart: t.Optional[bool]


# What a host is


class DomainName(t.TypedDict):
    """A machine of the grid on a host."""

    uuid: str
    name: str
    state: str


class HostFacts(t.TypedDict):
    """What libvirt and the kernel say of a host. ``load`` is that of the last minute; ``..._allocated`` are sums over
    all domains."""

    hostname: str
    architecture: str
    cpus: int
    cpus_allocated: int
    load: float
    memory: int
    memory_free: int
    memory_allocated: int
    machine_types: t.List[str]
    libvirt_version: str
    qemu_version: str
    networks: t.List[str]
    machines: t.List[DomainName]


class HostLayer(t.TypedDict):
    """A layer in a depot, and the references of the images that it is the topmost layer of."""

    digest: str
    names: t.List[str]


class Latency(t.TypedDict):
    """Seconds of a round trip to a site."""

    site: str
    seconds: float
