# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that the steps of a play pass to each other.

Modules return more fields than are named here: a step takes what it needs and passes the rest on. Sizes are bytes.
"""

from __future__ import annotations

import typing as t

Fields = t.Mapping[str, object]
"""What a module returned, not checked."""


class Failure(t.TypedDict, total=False):
    """Why a step failed, for programs: the ``failure`` beside a result's ``msg``."""

    code: str
    host: str | None
    remedy: str


class Result(t.TypedDict, total=False):
    """What a task registered, of a module that returns one row for each machine, image or export.

    :ivar failed: false as well where the task's ``failed_when`` let a failure pass; ``failure`` still shows it then.
    :ivar results: one result for each item, where the task is a loop; each has its ``item``.
    """

    changed: bool
    failed: bool
    unreachable: bool
    skipped: bool
    exception: str
    msg: str
    failure: Failure
    machines: list[Row]
    images: list[Image]
    exports: list[Export]
    leases: dict[str, Fields]
    results: list[Result]
    item: object


class Row(t.TypedDict, total=False):
    """What a step did to one machine. A row of the report is what all steps of a play say about it.

    :ivar provider: inventory name of the host that said so.
    :ivar state: ``running``, ``stopped``, ..., as the module ``machine_info`` returns it.
    :ivar actions: what was done, or would be in check mode, in words.
    """

    name: str | None
    uuid: str | None
    provider: str | None
    state: str | None
    changed: bool
    actions: list[str]
    failed: bool
    msg: str
    failure: Failure


class Spec(t.TypedDict, total=False):
    """An order in its canonical form; the fields that the steps of a play look at.

    :ivar image: what was ordered: ``name``, ``name@version`` or a digest.
    :ivar start: ``on_demand`` where the machine pages from its image until that is there.
    :ivar ready: when a deployment ends for it.
    """

    name: str
    image: str
    vcpus: int
    memory: int
    disk: int | None
    network: str
    extra_networks: list[str]
    goal: str
    site: str
    start: str
    ready: str
    users: list[dict[str, t.Any]]


class MadeFrom(t.TypedDict):
    """The image of a machine that exists."""

    name: str
    digest: str


class Order(t.TypedDict, total=False):
    """A machine of the store, as ``order`` and ``order_info`` return it.

    :ivar uuid: ``None`` in check mode for a machine that would be ordered.
    :ivar state: ``future`` and ``placed`` before a provider has had it.
    :ivar image: ``None`` while the machine doesn't exist.
    """

    name: str
    uuid: str | None
    provider: str | None
    state: str | None
    image: MadeFrom | None
    mac: str | None
    spec: Spec


class Image(t.TypedDict, total=False):
    """A version of an image: a result of ``image``, ``image_info`` or ``image_transfer``.

    :ivar digest: of its topmost layer; ``None`` in check mode where it isn't made yet.
    :ivar size: bytes of its layers.
    :ivar virtual_size: bytes of its disk.
    :ivar complete: whether the host has all of its layers.
    :ivar user: who logs in.
    :ivar python: the interpreter in it.
    :ivar route: how it was transferred, ``direct`` or through the controller (``relay``).
    """

    name: str
    version: str
    reference: str
    digest: str | None
    size: int | None
    virtual_size: int
    layers: list[str]
    created: str
    complete: bool
    user: str | None
    python: str | None
    route: str
    changed: bool
    failed: bool
    msg: str
    failure: Failure


class WantedImage(t.TypedDict, total=False):
    """An entry of the module ``image``, or of the catalogue."""

    name: str
    version: str
    digest: str
    source: Fields
    user: str
    python: str


class Place(t.TypedDict, total=False):
    """A result of the module ``placement``: where a machine is to run.

    :ivar generation: number of its next start.
    :ivar site: the site of its first start, which its MAC address is made of.
    """

    name: str
    uuid: str | None
    provider: str | None
    generation: int
    site: str
    failed: bool


class Export(t.TypedDict, total=False):
    """A layer that a host exports by NBD, a result of the module ``image_export``.

    :ivar host: the address at which it is reached.
    :ivar source: inventory name of the host that exports it.
    """

    digest: str
    host: str
    port: int
    virtual_size: int
    source: str
    failed: bool


class WantedExport(t.TypedDict, total=False):
    """An entry of the module ``image_export``.

    :ivar upstream: of a pager, the export from which it reads.
    :ivar ahead: of a pager, the host from which it gets at once what a boot reads.
    """

    digest: str
    upstream: Fields
    ahead: Fields


class Plan(t.TypedDict):
    """A deployment as it is decided for the whole grid.

    :ivar orders: the machines of this run.
    :ivar images: results for :func:`deployment.wanted_images` of the same orders, in its order.
    :ivar placed: one place for each machine that has an image.
    """

    orders: t.Sequence[Order]
    images: t.Sequence[Image]
    placed: t.Sequence[Place]


class WantedTransfer(t.TypedDict):
    """An entry of the module ``image_transfer``."""

    name: str
    digest: str
    size: int | None


class MachineEntry(t.TypedDict, total=False):
    """An entry of the module ``machine``: the order's own fields, and these.

    :ivar exists: whether a provider has had it already.
    :ivar ordered_site: the site that the order asks for; ``site`` is that of its first start.
    :ivar paging: the export from which it pages: ``host``, ``port``, ``virtual_size``.
    :ivar mtu: of its network, in bytes, where the overlay knows it; ``mtus`` of its other networks.
    """

    uuid: str
    name: str
    provider: str
    generation: int | None
    site: str | None
    ordered_site: str | None
    image: MadeFrom
    user: str | None
    python: str | None
    exists: bool
    network: str
    extra_networks: list[str]
    address: Fields | None
    mac: str
    display: str
    start: str
    paging: Fields
    mtu: int
    mtus: dict[str, int]


class Share(t.TypedDict):
    """What one provider has to do in a deployment.

    :ivar images: to be brought before their machines start, each once.
    :ivar paged: to be brought while the machines that page from them run.
    :ivar to_page: images that machines are to page from, because the provider lacks them.
    :ivar machines: to be made and started.
    :ivar failed: machines whose image could not be brought.
    """

    images: list[WantedTransfer]
    paged: list[WantedTransfer]
    to_page: list[WantedExport]
    machines: list[MachineEntry]
    failed: list[Row]


class Provider(t.TypedDict, total=False):
    """What is known of a provider; of its images, those that the module ``provider_info`` saw."""

    name: str
    images: list[Image] | None


class Endpoint(t.TypedDict, total=False):
    """How the hosts of the grid reach one of them.

    :ivar port: of its SSH server.
    :ivar depot: directory with its images.
    """

    name: str
    address: str
    port: int
    site: str
    depot: str
