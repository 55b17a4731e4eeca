# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's disk as the source of an image: read in place while it is stopped, else as a copy of one moment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import backup, domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Events,
    Hypervisor,
    events_of,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import header, qemu_img
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import overlay_runs, raw_runs
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.capture import Reading, Source
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import Observed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import check_uuid
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import check_text
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress


class Found(t.NamedTuple):
    """A machine of this host whose lock is held: its domain, its definition, and what there is of it."""

    uuid: str
    domain: Domain
    tree: ET.Element
    observed: Observed

    @property
    def disk_path(self) -> str | None:
        """The path of its disk in its definition."""
        return domain_xml.read(self.tree)["disk_path"]


def find(hypervisor: Hypervisor, machine: str) -> str:
    """The uuid of a machine of this host.

    :param machine: its uuid or its name.
    :raises GridError: ``machine_unknown``, ``foreign_domain``, ``invalid_name``.
    """
    try:
        uuid: str | None = check_uuid(machine)
        name = None
    except GridError:
        uuid, name = None, check_text("name", machine)
    with translated("look for the machine"):
        domain = observe.find_domain(hypervisor.conn, uuid, name)[0]
    if domain is None:
        raise GridError(
            "machine_unknown",
            "no such machine on this host",
            remedy="See where it is: virtuoso.grid.machine_info on each provider",
        )
    return str(domain.UUIDString())


@contextlib.contextmanager
def held(
    hypervisor: Hypervisor, depot: disk.Depot, locks: disk.Locks | None, machine: str, timeout: float
) -> t.Iterator[tuple[Found, contextlib.ExitStack]]:
    """Hold a machine's lock while the body runs, or until it closes the stack.

    :param machine: its uuid or its name.
    :param locks: ``None`` in check mode.
    :param timeout: seconds to wait for the lock.
    :returns: the machine, and the stack.
    :raises GridError: ``machine_unknown``, ``machine_busy``, ``foreign_domain``, ``disk_missing``, ``invalid_name``.
    """
    uuid = find(hypervisor, machine)
    with contextlib.ExitStack() as stack:
        if locks is not None:
            stack.enter_context(locks.of(uuid, timeout))
        domain, tree, observed = observe.observe(hypervisor.conn, depot, uuid, None)
        if domain is None or observed.disk is None:
            raise GridError(
                "disk_missing", "the machine's disk is gone", remedy="Bring the file back, or remove the machine"
            )
        yield Found(uuid, domain, tree, observed), stack


def layer_below(found: Found) -> str:
    """The digest of the layer that the machine's disk is an overlay on. :raises GridError: ``not_on_a_layer``."""
    digest = disk.layer_of(found.observed.disk)
    if digest is None:
        raise GridError(
            "not_on_a_layer",
            "the machine's disk is not an overlay on a layer of this host",
            remedy="Wait until its image is whole where it was started on demand; a disk of its own can be imported "
            "with source.type file",
        )
    return digest


def source_of(
    hypervisor: Hypervisor,
    depot: disk.Depot,
    found: Found,
    release: t.Callable[[], None],
    timeout: float,
    progress: Progress,
) -> Source:
    """The machine's disk, to be captured.

    :param release: releases the machine's lock; called as soon as the disk doesn't need it any more.
    :param timeout: seconds for the copy of a running disk.
    """
    values = found.observed.defined[1]
    below, path = layer_below(found), found.disk_path or depot.disk(found.uuid)
    if found.observed.state in ("stopped", "hibernated"):
        return Resting(
            machine=found.uuid,
            below=below,
            user=values["user"],
            python=values["python"],
            consistent="stopped" if found.observed.state == "stopped" else "crash",
            path=path,
            depot=depot,
            domain=found.domain,
        )
    return Running(
        machine=found.uuid,
        below=below,
        user=values["user"],
        python=values["python"],
        consistent="crash",
        path=path,
        depot=depot,
        domain=found.domain,
        events=events_of(hypervisor),
        release=release,
        timeout=timeout,
        progress=progress,
        awake=found.observed.state == "running",
    )


@contextlib.contextmanager
def _opened(path: str) -> t.Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _identity(path: str) -> tuple[int, int, int]:
    facts = os.stat(path)
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def checked_size(head: bytes) -> int:
    """The virtual size of a disk, whose header a guest that broke out may have written (pure).

    :raises GridError: ``disk_invalid``.
    """
    found = header.parse(head)
    if (
        found.data_file
        or found.encrypted
        or found.corrupt
        or found.unknown_features
        or found.virtual_size > header.MAX_VIRTUAL_SIZE
    ):
        raise GridError(
            "disk_invalid", "the machine's disk is of a kind that can't be captured", remedy="See qemu-img info of it"
        )
    return found.virtual_size


@dataclasses.dataclass
class Resting(Source):
    """The disk of a stopped machine, read in place: its own clusters, not those of the layers below."""

    path: str
    depot: disk.Depot
    domain: Domain
    _before: t.Optional[t.Tuple[int, int, int]] = None

    @contextlib.contextmanager
    def open(self, work: str | None) -> t.Iterator[Reading | None]:
        """Its own clusters; where they can't be read in place, a raw copy of the whole disk."""
        self._before = _identity(self.path)
        with _opened(self.path) as descriptor:
            size = checked_size(os.pread(descriptor, header.HEAD_SIZE, 0))
            runs = overlay_runs(self.path)
            if runs is not None:
                yield Reading(descriptor, runs, size, False)
                return
        if work is None:
            yield None
            return
        raw = os.path.join(work, "disk.raw")
        chain = self.depot.chain(self.below).paths
        check_space(
            work, sum(os.stat(each).st_blocks * 512 for each in (self.path, *chain)) * 2, "a copy of the machine's disk"
        )
        qemu_img.convert(self.path, "qcow2", raw, chain)
        with _opened(raw) as descriptor:
            yield Reading(descriptor, raw_runs(descriptor), size, True)

    def settle(self) -> None:
        """Check that nobody started the machine meanwhile. :raises GridError: ``image_changed``."""
        with translated("look at the machine afterwards"):
            active = self.domain.isActive()
        if active or _identity(self.path) != self._before:
            raise GridError(
                "image_changed", "the machine's disk changed while it was read", remedy="Run the same again"
            )


@dataclasses.dataclass
class Running(Source):
    """The disk of a running or paused machine, copied as it is when the copy begins."""

    path: str
    depot: disk.Depot
    domain: Domain
    events: Events
    release: t.Callable[[], None]
    timeout: float
    progress: Progress
    awake: bool

    @contextlib.contextmanager
    def open(self, work: str | None) -> t.Iterator[Reading | None]:
        """A copy made by QEMU."""
        if work is None:
            yield None
            return
        chain = self.depot.chain(self.below).paths
        # The copy, and the layer beside it
        check_space(
            work, sum(os.stat(each).st_blocks * 512 for each in (self.path, *chain)) * 2, "a copy of the machine's disk"
        )
        # QEMU runs as another user and makes its file in it
        os.chmod(work, 0o711)
        copy = os.path.join(work, "disk.qcow2")
        with translated("copy the running disk"):
            if backup.abandoned(self.domain, work):
                backup.abort(self.domain)
            agent = self.awake and domain_xml.agent_connected(observe.running(self.domain))
            self.consistent = backup.copy(
                self.domain,
                self.events,
                copy,
                self.timeout,
                agent,
                lambda done, total: self.progress.bytes("copy", done, total),
            )
        self.release()
        with _opened(copy) as descriptor:
            size = checked_size(os.pread(descriptor, header.HEAD_SIZE, 0))
            runs = overlay_runs(copy)
            if runs is None:
                raise GridError(
                    "capture_failed",
                    "QEMU wrote the copy in an unexpected way",
                    remedy="Capture the machine while it is stopped",
                )
            yield Reading(descriptor, runs, size, True)

    def settle(self) -> None:
        """A copy of one moment doesn't change."""
