# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that travel between modules, roles and rooms: a machine's order, facts, result and snapshots.

They are dictionaries at run time, because they come from JSON and module arguments, and go there. Sizes are bytes.
``total=False`` marks fields that may be left out. What a domain is made of and read as is in ``_hypervisor/records``.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import records as domain

# What is wanted


class _WithSite(domain.Ordered, total=False):
    site: str


class Order(_WithSite):
    """An order in its canonical form, as :func:`spec.parse_order` returns it. ``image`` is as ordered: a name,
    name@version or digest. ``site`` is where the machine has to be, if the order says so."""

    image: str


class Wanted(domain.WantedDomain):
    """What a machine on this host should be, as :func:`entry.parse_entry` returns it: the order with ``image`` as name
    and digest, and what was decided for it. ``exists`` says that the machine was seen here before; ``mtus`` are those
    of ``extra_networks``."""

    mtus: t.Dict[str, int]
    exists: bool


# How an object's work ended


class Failure(t.TypedDict, total=False):
    """An error for programs. A code may have further fields of its own."""

    code: str
    host: str
    object: str
    tried: str
    remedy: str


class Failed(t.TypedDict, total=False):
    """What a row has in addition where its object failed."""

    failed: bool
    msg: str
    failure: Failure


class _Changed(t.TypedDict):
    name: t.Optional[str]
    uuid: t.Optional[str]
    changed: bool


class Change(t.TypedDict):
    """A field that changes, from what to what, and when: ``live``, ``next start`` or ``now``."""

    field: str
    before: object
    after: object
    when: str


Pending = t.Dict[str, t.List[object]]
"""Fields that change at the next start, each as [value now, value then]."""


class MachineRow(_Changed):
    """One machine's result of the module ``machine``. ``ignored`` has the fields whose change has no effect any more,
    with the reason; ``clock_set`` is ``None`` where the guest wasn't woken."""

    actions: t.List[str]
    changes: t.List[Change]
    state: str
    restart_required: bool
    pending: Pending
    ignored: t.Dict[str, str]
    pages: bool
    display: domain.Display
    mac: t.Optional[str]
    clock_set: t.Optional[bool]


class SnapshotRow(_Changed):
    """One machine's result of the module ``machine_snapshot``. ``snapshots`` are the names afterwards; ``consistent``
    is stopped, frozen, memory or crash where a snapshot was taken."""

    actions: t.List[str]
    state: str
    snapshots: t.List[str]
    consistent: t.Optional[str]
    clock_set: t.Optional[bool]


class RollbackRow(t.TypedDict):
    """The result of rolling one machine back. ``disk`` is its size, ``previous`` the image that it was on."""

    machine: str
    version: str
    reference: str
    digest: str
    layers: t.List[str]
    disk: int
    previous: domain.Image
    changed: bool
    actions: t.List[str]
    diff: t.Optional[t.Dict[str, str]]


class Screenshot(t.TypedDict):
    """A picture of a display; ``content`` is base64, the sizes are pixels."""

    format: str
    width: int
    height: int
    content: str


class DisplayRow(t.TypedDict):
    """One machine's result of the module ``display``."""

    uuid: str
    display: domain.Display
    screenshot: t.Optional[Screenshot]


# What a machine is


class Snapshot(t.TypedDict):
    """A snapshot of a machine. ``memory`` says whether the guest's memory is kept, ``memory_size`` how large its file
    is; ``created`` is UTC, as 2026-01-31T12:00:00Z."""

    name: str
    created: str
    description: t.Optional[str]
    memory: bool
    memory_size: t.Optional[int]


class MemoryFile(t.TypedDict):
    """The file with a hibernated machine's memory."""

    path: str
    size: int


class OrderedShare(domain.Performance, total=False):
    """What of a provider's resources was ordered."""

    vcpus: int
    memory: int


class GivenShare(t.TypedDict, total=False):
    """What libvirt has set of them for a running machine."""

    vcpus: int
    memory: int
    cpu_shares: t.Optional[int]
    cpu_limit: t.Optional[domain.CpuLimit]
    disk_io: t.Optional[domain.DiskLimits]


class Usage(t.TypedDict):
    """What a machine used in ``window`` seconds: ``cpu`` and ``cpu_ceiling`` in percent of one processor, ``disk`` in
    bytes a second, read and write."""

    window: float
    cpu: t.Optional[float]
    cpu_ceiling: float
    disk: t.Optional[t.Dict[str, int]]


class Identity(t.TypedDict):
    """The fields that each domain on a host has. ``state`` is running, paused, hibernated, stopped or absent;
    ``foreign`` says that the domain isn't the collection's."""

    name: t.Optional[str]
    uuid: t.Optional[str]
    state: str
    foreign: bool


class Facts(Identity, Failed, total=False):
    """A machine as the module ``machine_info`` returns it. One that is absent or foreign has the identity only; one
    without an address in time, or that lost what it pages from, has a failure beside its facts.

    ``vcpus`` to ``virtualization`` are what it has now, or will have at its next start where it doesn't run.
    ``address`` is the ordered one, which may be unseen; ``address_source`` is agent, lease, neighbour or home.
    """

    memory_file: t.Optional[MemoryFile]
    owner: t.Optional[str]
    image: domain.Image
    generation: int
    site: t.Optional[str]
    goal: t.Optional[str]
    tags: t.List[str]
    user: t.Optional[str]
    python: t.Optional[str]
    packages: t.List[str]
    users: t.List[domain.User]
    address: t.Optional[domain.Address]
    wishes: domain.OrderedWishes
    vcpus: int
    vcpus_max: int
    memory: int
    memory_max: t.Optional[int]
    network: t.Optional[str]
    extra_networks: t.List[str]
    mac: t.Optional[str]
    boot: t.List[str]
    autostart: t.Optional[bool]
    description: t.Optional[str]
    cpu_shares: t.Optional[int]
    cpu_limit: t.Optional[domain.CpuLimit]
    disk_io: t.Optional[domain.DiskLimits]
    machine_type: t.Optional[str]
    virtualization: t.Optional[str]
    disk: t.Optional[int]
    pages: t.Optional[domain.Export]
    paused_reason: t.Optional[str]
    display: domain.Display
    snapshots: t.List[Snapshot]
    ordered: OrderedShare
    given: t.Optional[GivenShare]
    usage: t.Optional[Usage]
    addresses: t.List[str]
    address_source: t.Optional[str]
    restart_required: bool
    pending: Pending


# Files


class DiskIdentity(t.TypedDict):
    """By which a disk is known to be unwritten since: its file's size, and time of change in nanoseconds."""

    size: int
    mtime_ns: int


class MemoryHead(t.TypedDict, total=False):
    """The head of the file with a machine's memory. ``size`` is that of the memory as libvirt saved it, ``compressed``
    that of the compressed stream; ``disk`` is the disk that belongs to it; versions are libvirt's numbers.

    Of a snapshot it has ``snapshot``, its name, and ``awake``, whether the guest ran.
    """

    format: int
    uuid: t.Optional[str]
    name: t.Optional[str]
    generation: t.Optional[int]
    image: t.Optional[domain.Image]
    layers: t.List[str]
    disk: t.Optional[DiskIdentity]
    vcpus: int
    memory: int
    machine_type: t.Optional[str]
    virtualization: t.Optional[str]
    libvirt: int
    qemu: int
    created: str
    size: int
    compressed: int
    snapshot: str
    awake: bool


class Space(t.TypedDict):
    """A depot's file system: its size, what is free, and the sum of what the machines' disks may grow to."""

    disk: int
    disk_free: int
    disk_allocated: int
