# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a move, as they travel between the controller's steps and the hosts.

Sizes are bytes, times are seconds unless a field says otherwise. Most fields are absent where they mean nothing.
"""

from __future__ import annotations

import typing as t

Json = t.Mapping[str, object]
"""A record that another room owns: it is passed on, not read."""


class Known(t.TypedDict):
    """What the store knows of a machine."""

    provider: t.Optional[str]
    generation: t.Optional[int]


class Question(t.TypedDict):
    """What the step ``look`` is asked about: a machine, and the provider where it should be."""

    uuid: str
    name: t.Optional[str]
    """``None`` where nothing but the uuid is known"""
    source: str


class Move(t.TypedDict, total=False):
    """A machine that is to move."""

    name: str
    uuid: str
    owner: t.Optional[str]
    generation: t.Optional[int]
    source: str
    """the provider that should have it now"""
    target: t.Optional[str]
    """the provider where it goes; ``None`` until one is chosen, or where it goes nowhere"""
    known: t.Optional[Known]
    question: Question
    spec: t.Mapping[str, object]
    """the order"""
    image: t.Optional[Image]


class Image(t.TypedDict, total=False):
    """A chain of layers."""

    name: str
    digest: str
    size: int
    virtual_size: int


class Failure(t.TypedDict, total=False):
    """Why something failed, for programs."""

    code: str
    remedy: str
    copy: t.Optional[str]
    """where the true copy is after a failed move: ``source``, ``target``, or ``None`` where that is unknown"""
    all: t.List[t.Dict[str, str]]
    """all reasons against a move, each with ``code`` and ``msg``"""


class Mark(t.TypedDict, total=False):
    """What a copy's metadata say while it is on its way."""

    to: str
    generation: int
    """of the copy that the move makes"""
    attempt: str
    autostart: bool


class Incoming(t.TypedDict):
    """What came of a machine and is no machine yet."""

    generation: int
    source: str
    attempt: str
    complete: bool
    """whether all files are here, and verified"""
    was: t.Optional[str]
    """``running`` or ``paused`` where the machine sleeps only for its journey"""


class Stats(t.TypedDict, total=False):
    """What libvirt says of a live move."""

    downtime: t.Optional[int]
    """milliseconds"""
    bytes: t.Optional[int]
    memory_bytes: t.Optional[int]
    disk_bytes: t.Optional[int]
    passes: t.Optional[int]
    setup: t.Optional[int]
    """milliseconds"""
    postcopy: bool
    seconds: float


class Facts(t.TypedDict, total=False):
    """A machine as the module ``machine_info`` returns it, as far as moves read it."""

    name: str
    uuid: str
    state: str
    provider: str
    network: t.Optional[str]
    mac: t.Optional[str]
    extra_networks: t.List[str]


class File(t.TypedDict):
    """A file on offer."""

    size: int
    allocated: int


class Row(t.TypedDict, total=False):
    """What became of a machine, for the report."""

    name: str
    uuid: str
    changed: bool
    provider: str
    state: str
    actions: t.List[str]
    plan: str
    mode: str
    stats: t.Optional[Stats]
    failed: bool
    msg: str
    failure: Failure


class Answer(Row, total=False):
    """What a host returned of a machine in any step."""

    waited: bool
    """whether another run was at work on it, so that what was seen elsewhere before may not hold"""
    facts: Facts
    files: t.Dict[str, File]
    port: int
    autostart: bool


class View(Answer, total=False):
    """What a host returned of a machine in the step ``look``."""

    generation: int
    moving: t.Optional[Mark]
    incoming: t.Optional[Incoming]
    slept: t.Optional[str]
    arriving: bool
    image: Image
    memory: int
    memory_file: int
    machine_type: str
    virtualization: str
    network: t.Optional[str]
    extra_networks: t.List[str]
    mac: t.Optional[str]
    lease: t.Optional[str]
    pages: object
    disk: t.Optional[int]
    """the disk's virtual size; ``None`` where there is none"""
    disk_used: int
    layers: t.List[str]
    tied: t.List[str]
    snapshots: int
    seed: t.Optional[str]
    cpu: t.Optional[str]


class Machine(View, total=False):
    """A machine of a journey: what the source's look returned, what was decided, and how far it has come.

    ``generation`` is that of the copy that the move makes.
    """

    status: str
    """planned, prepared, sent (live) or offered (files), received, done; or undo, restore, failed"""
    source: str
    target: str
    attempt: str
    was: str
    """its state before the move"""
    missing: t.List[str]
    """layers of its image that the target lacks"""
    reserve: int
    size: int
    """what goes over the link at most"""
    link: t.Tuple[str, str]
    """the two sites"""
    postcopy: bool
    """whether the target allows post-copy"""
    row: Row
    seen: Facts
    settled: bool
    """whether it is here only because an interrupted move of it was settled"""


class Entry(Machine, total=False):
    """A machine as a step on a host takes it."""

    action: str
    start: bool
    """whether it is to be resumed at the target, because it sleeps only for its journey"""


class Journey(t.TypedDict, total=False):
    """The machines that go from one provider to another at the same time."""

    source: str
    target: str
    parallel: int
    """how many of them move at a time"""
    postcopy: bool
    images: t.List[Image]
    """those of which the target lacks layers"""
    networks: t.List[str]
    """all networks that its machines are on"""
    machines: t.List[Machine]


Wave = t.List[Journey]
"""Journeys that are made at the same time."""


class Host(t.TypedDict, total=False):
    """What a host offers to machines that come, as ``look`` returns it."""

    name: str
    memory: int
    memory_allocated: int
    memory_free: int
    memory_promised: int
    """to other machines of the same play, as ``disk_promised``"""
    disk_free: int
    disk_promised: int
    virtualization: str
    qemu_version: str
    libvirt_version: str
    machine_types: t.List[str]
    networks: t.List[str]
    layers: t.List[str]
    domains: t.Dict[str, str]
    """uuids by name"""
    leases: t.Dict[str, str]
    """MAC addresses by IP address"""
    postcopy: bool
    cpu: t.Dict[str, bool]
    """by a machine's uuid, whether the processor has what its guest uses"""


class Unsettled(t.TypedDict):
    """A machine of which a copy on a host is on its way."""

    uuid: str
    name: t.Optional[str]


class Result(t.TypedDict, total=False):
    """What a task returned for a host."""

    changed: bool
    machines: t.List[View]
    host: Host
    unsettled: t.List[Unsettled]
    unreachable: bool
    skipped: bool
    failed: bool
    msg: str
    failure: Failure
    exception: str
    module_stderr: str
    module_stdout: str
    images: t.List[ImageRow]
    part: object
    """of the module ``overlay``: what the host has"""
    migrate__item: t.Union[str, Journey, Notice]
    """what the task's loop was at: a host, a journey, or a notice"""


class ImageRow(t.TypedDict, total=False):
    """What became of an image, as the module ``image_transfer`` returns it."""

    name: str
    digest: str
    failed: bool
    msg: str
    failure: Failure


class Registered(t.TypedDict, total=False):
    """What a play's host registered of a task with a loop."""

    results: t.List[Result]


Looked = t.Mapping[str, Result]
"""Results of the step ``look``, by host."""


class SettleEntry(t.TypedDict):
    """What the step ``settle`` is to do with a machine's copy on a host."""

    uuid: str
    name: str
    action: str
    generation: int
    """of the true copy"""
    attempt: t.Optional[str]
    autostart: bool
    lease: t.Optional[str]


class Settle(t.TypedDict):
    """What is to be settled, by host: what comes first, and what follows where that succeeded."""

    first: t.Dict[str, t.List[SettleEntry]]
    then: t.Dict[str, t.List[SettleEntry]]


class Plan(t.TypedDict):
    """What comes next for each machine."""

    settle: Settle
    moves: t.List[Machine]
    rows: t.List[Row]
    """of machines for which nothing is left to do, or that can't go"""
    seen: t.List[Facts]
    """machines where they are, for the store"""


class Chosen(t.TypedDict):
    """Machines that are to move, and rows of those that can't."""

    moves: t.List[Move]
    failed: t.List[Row]


class Settled(t.TypedDict):
    """What settling has led to: entries that still follow, and rows."""

    then: t.Dict[str, t.List[SettleEntry]]
    done: t.List[Row]
    failed: t.List[Row]


class Placement(t.TypedDict):
    """Machines of one source for which the module ``placement`` is to choose a target."""

    source: str
    machines: t.List[t.Dict[str, object]]
    providers: t.List[t.Dict[str, object]]


class Network(t.TypedDict, total=False):
    """A network of the overlay, as ``virtuoso_networks`` has it."""

    name: str
    shortcuts: t.List[t.List[str]]


class Card(t.TypedDict):
    """A network card of a machine that moves, and where its machine is."""

    name: t.Optional[str]
    uuid: str
    network: t.Optional[str]
    mac: str
    source: str
    target: str
    at: str
    coming: bool
    """whether the machine isn't there yet, so that it is only to be admitted"""


class Place(t.TypedDict):
    """Where a card is, as the module ``overlay`` takes it."""

    provider: str
    network: t.Optional[str]
    mac: str


class Notice(t.TypedDict):
    """What a host of the overlay is told."""

    host: str
    machines: t.List[Place]
    macs: t.List[str]
    """cards whose shortcuts it is to forget"""
    announce: t.List[str]
    """cards that are to be announced from there"""


class Forwarded(t.TypedDict):
    """A wave after the overlay's hosts were told, and what no row tells."""

    wave: Wave
    warnings: t.List[str]


class Target(t.TypedDict, total=False):
    """Where machines go, for the step ``send``."""

    name: str
    address: str
    """as the source reaches it"""
    path: str
    """of its depot"""
    site: str
    postcopy: bool


class Source(t.TypedDict, total=False):
    """Where files come from, for the step ``receive``."""

    name: str
    host: str
    """its address, as the target reaches it"""
    port: int
    key_name: str
    """the name in its certificate, where the way leads through another place"""


class Params(t.TypedDict):
    """The module's options, as a run of a step takes them."""

    step: str
    name: t.Optional[str]
    uri: str
    path: str
    facts: bool
    unsettled: bool
    machines: t.List[Entry]
    target: t.Optional[Target]
    source: t.Optional[Source]
    socket: t.Optional[str]
    parallel: int
    bandwidth: t.Optional[int]
    """bytes a second for each machine"""
    downtime: t.Optional[int]
    """milliseconds"""
    postcopy: bool
    postcopy_after: int
    stall_timeout: int
    timeout: int
    ports: str
    progress_file: t.Optional[str]
