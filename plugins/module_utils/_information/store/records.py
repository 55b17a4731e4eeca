# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that the store gives back: their fields, units and what an empty field means. Types only.

Each record is a plain dictionary with exactly these keys. :mod:`query` (SQLAlchemy) and :mod:`listing` (sqlite3) make
them; nobody else converts rows. Sizes are bytes; times are text, ISO 8601 in UTC, whole seconds; a uuid is text;
``None`` is "not known", unless a field says otherwise.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import Spec

Values = t.Mapping[str, object]
"""Columns to be written, by name."""

ReportedFacts = t.Dict[str, object]
"""What a provider or home reported of itself, as it came. Whoever reads a field checks its form."""


class ImageName(t.TypedDict):
    """An image as a machine's facts name it; at least one of the two is known."""

    name: str | None  # name@version
    digest: str | None  # of its topmost layer, sha256:...


class DisplayPlace(t.TypedDict):
    """Where a machine's console listens."""

    type: str  # vnc
    host: str | None
    port: int | None


class MachineFacts(t.TypedDict, total=False):
    """What was seen of a machine beside its columns; a field that was never reported is missing."""

    image: ImageName | None
    addresses: list[str]  # the best one first
    address_source: str | None  # agent, lease, neighbour or home; ordered in rows of earlier releases
    mac: str | None
    display: DisplayPlace | None
    network: str | None
    goal: str | None
    tags: list[str]
    user: str | None  # the image's own user
    python: str | None  # path of Python in the guest
    restart_required: bool | None


class HostColumns(t.TypedDict):
    """The columns of the table ``host`` that all hosts have; ``site`` is a name here."""

    uuid: str
    name: str
    kind: str  # provider, home or machine
    site: str | None
    state: str | None
    address: str | None  # of a machine: its first usable address
    port: int | None
    login: str | None
    identity_file: str | None
    ssh_args: str | None
    cpus: int | None
    memory: int | None
    disk: int | None
    generation: int | None
    seen: str | None
    missing: str | None  # since when a machine has not been where it should be
    architecture: str | None
    virtualization: str | None  # kvm or qemu
    libvirt_version: str | None
    qemu_version: str | None
    load: float | None
    cpus_allocated: int | None
    memory_free: int | None
    memory_allocated: int | None
    disk_free: int | None
    disk_allocated: int | None
    price: float | None  # per hour


class HostRow(HostColumns):
    """A provider or home."""

    facts: ReportedFacts


class MachineRow(HostColumns):
    """A machine with its order, existing or future; the fields of the order are ``None`` where it has none."""

    facts: MachineFacts
    owner: str | None
    spec: Spec | None  # the order in canonical form
    created: str | None
    updated: str | None
    ordered_generation: int | None
    future: bool  # ordered, does not exist yet
    provider: str | None  # name of the provider that it is on, or that room is held on
    provider_uuid: str | None
    image_uuid: str | None
    network_home: str | None  # name of the home of its network


class ForeignDomainRow(t.TypedDict):
    """A domain on a provider that is not the grid's."""

    provider_name: str
    provider: str  # uuid
    uuid: str
    name: str
    state: str | None
    seen: str
    missing: str | None


class ImageRow(t.TypedDict):
    """An image of the store."""

    uuid: str
    name: str | None
    version: str | None
    digest: str  # of its topmost layer
    virtual_size: int | None
    size: int | None  # the sum of its layers


class EventRow(t.TypedDict):
    """One entry of an object's history."""

    time: str
    what: str
    details: dict[str, object]


class NetworkRow(t.TypedDict):
    """A layer-2 segment."""

    uuid: str
    name: str
    home: str | None  # uuid
    owner: str | None
    vni: int | None  # None for a provider's own libvirt network, which is on no overlay
    mtu: int | None


class LinkDetails(t.TypedDict):
    """What a link is known by, and why it has its transport."""

    name: str
    between: list[str]  # names of its two hosts
    reason: str | None


class LinkRow(t.TypedDict):
    """A tunnel between two sites."""

    uuid: str
    site_a: str  # uuid
    site_b: str  # uuid
    kind: str  # tree or shortcut
    transport: str
    vni: int | None
    mtu: int | None
    state: str | None
    details: LinkDetails
    seen: str | None


class ReservationColumns(t.TypedDict):
    """What a reservation is about; without a machine it is its owner's, for machines to come."""

    machine: str | None  # uuid
    owner: str
    cpu_period_us: int | None  # microseconds
    cpu_slice_us: int | None  # microseconds of CPU time in each period, of all its virtual CPUs together
    memory: int | None
    begin: str
    end: str


class ReservationRow(ReservationColumns):
    """A reservation of the store."""

    uuid: str
    provider: str  # name
    provider_uuid: str
    state: str  # admitted
    created: str


class SampleRow(t.TypedDict):
    """A measurement to be written."""

    object: str  # uuid of a site, host or machine
    peer: str | None  # uuid of the other one, for what lies between two
    metric: str
    time: str
    value: float


class NewImage(t.TypedDict, total=False):
    """An image to be written; ``digest`` is always there."""

    digest: str
    name: str | None  # name@version
    size: int | None
    virtual_size: int | None
