# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``machine_snapshot``: takes, deletes and reverts to snapshots; ``docs/snapshots.md`` says why they are so.

The disk's snapshot is within its qcow2 file. The memory is a file like that of a hibernated machine, written while the
guest is paused, and compressed after it was resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import backup, domain_xml, metadata, monitor
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    events_of,
    libvirt,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import changes, copies
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import label
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import MemoryHead, SnapshotRow
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk, hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.snapshot_files import (
    ENDINGS,
    directory,
    memory_file,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life import power
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.batch_base import (
    BatchBase,
    Entry,
    Params,
    Result,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots import disk_source, plan
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._run import attempt

# Seconds for a guest's agent to freeze its file systems
_FREEZE_PATIENCE = 20
_ROOM = "See that the depot's file system has room, then run again"


def _inner(path: str) -> dict[str, str]:
    """The number of each snapshot in a disk's file, by name. QEMU may have the file open."""
    words = ["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", path]
    said = command(words, timeout=60, code="disk_failed", remedy="See what qemu-img said; then run again")
    return {str(each["name"]): str(each["id"]) for each in json.loads(said).get("snapshots") or ()}


def _with_memory(path: str) -> frozenset[str]:
    """The names of the snapshots that have a file with memory. :param path: of the machine's disk."""
    try:
        names = os.listdir(directory(path))
    except FileNotFoundError:
        return frozenset()
    return frozenset(os.path.splitext(name)[0] for name in names)


class Machine:
    """One machine whose lock is held, and its snapshots."""

    def __init__(
        self, hypervisor: Hypervisor, depot: disk.Depot, found: disk_source.Found, description: str | None
    ) -> None:
        self.hypervisor = hypervisor
        self.conn = hypervisor.conn
        self.depot = depot
        self.uuid, self.domain, self.tree, self.observed = found
        self.path = found.disk_path or depot.disk(self.uuid)
        self.description = description
        self.consistent: str | None = None
        self.clock_set: bool | None = None

    def seen(self) -> plan.Seen:
        """What there is of snapshots."""
        names = frozenset(each.getName() for each in self.domain.listAllSnapshots(0))
        model = self.observed.live or self.observed.defined[0]
        return plan.Seen(
            self.observed.state,
            model["pages"] is not None,
            names,
            frozenset(_inner(self.path)),
            _with_memory(self.path),
        )

    def head(self, name: str) -> MemoryHead | None:
        """The head of a snapshot's memory, ``None`` where it has none.

        :raises GridError: ``hibernation_invalid``, ``hibernation_foreign``.
        """
        path = memory_file(self.path, name)
        if path is None:
            return None
        head = hibernate.read_file(path)
        if head is None:
            raise GridError(
                "hibernation_invalid",
                "the snapshot's memory was not compressed",
                remedy="Take the snapshot again: the same with state present does",
            )
        if head.get("uuid") != self.uuid:
            raise GridError(
                "hibernation_foreign",
                "the snapshot's memory is another machine's",
                remedy="Bring its own file back, or delete the snapshot",
            )
        return head

    def _monitor(self, execute: str, **arguments: object) -> None:
        """Have QEMU do what libvirt has no call for: a snapshot within a disk that is in use."""
        try:
            # A machine that was woken and left paused has not activated its disk yet.
            monitor.activate(self.domain)
            node = monitor.nodes(self.domain).get(self.path)
            if node is None:
                raise GridError("snapshot_failed", f"QEMU does not have {self.path} open", remedy="Run again")
            monitor.ask(self.domain, execute, device=node, **arguments)
        except monitor.Refused as exc:
            raise GridError("snapshot_failed", f"QEMU says: {exc}", remedy=_ROOM) from exc

    def _qemu_img(self, option: str, snapshot_name: str) -> None:
        words = [
            "qemu-img",
            "snapshot",
            option,
            snapshot_name,
            "--image-opts",
            f"driver=qcow2,file.driver=file,file.filename={self.path.replace(',', ',,')}",
        ]
        command(words, timeout=600, code="disk_failed", remedy="See what qemu-img said; then run again")

    def do(self, step: plan.Step, memory: bool) -> None:
        """Do one step. :param memory: whether a snapshot that is taken keeps the guest's memory."""
        if step.kind == "take":
            self.take(step.name, memory)
        elif step.kind == "drop":
            self.drop(step.name)
        else:
            self.revert(step.name)

    def take(self, name: str, memory: bool) -> None:
        """Take a snapshot; its entry in libvirt comes last."""
        try:
            if not self.domain.isActive():
                self._qemu_img("-c", name)
                self.consistent = "stopped"
            elif memory:
                self._take_with_memory(name)
            else:
                with backup.frozen(
                    self.domain, self.observed.state == "running" and self.observed.agent, _FREEZE_PATIENCE
                ) as frozen:
                    self.consistent = "frozen" if frozen else "crash"
                    self._monitor("blockdev-snapshot-internal-sync", name=name)
            self._register(name)
        except (GridError, libvirt.libvirtError, OSError):
            # What is left would fill the file system, which the guest needs too. A killed run leaves it to the next.
            with contextlib.suppress(GridError, libvirt.libvirtError, OSError):
                self.drop(name)
            raise

    def _take_with_memory(self, name: str) -> None:
        self.depot.prepare()
        place = directory(self.path)
        check_space(os.path.dirname(place), self.domain.maxMemory() * 1024 * 3 // 2, "the machine's memory")
        os.makedirs(place, 0o711, exist_ok=True)
        saved = os.path.join(place, f"{name}.save")
        awake = observe.state_of(self.domain) == "running"
        self.consistent = "memory"
        if awake:
            self.domain.suspend()
        try:
            # The disk first: QEMU deactivates its disks when a memory was saved, until the guest runs.
            self._monitor("blockdev-snapshot-internal-sync", name=name)
            self.domain.snapshotCreateXML(_memory_only(name, saved), libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)
        finally:
            # A machine that was paused must run for an instant too: otherwise it couldn't be hibernated, nor its disk
            # be used.
            self.domain.resume()
            if not awake:
                self.domain.suspend()
        if not hibernate.is_whole(saved):
            raise GridError("snapshot_failed", "libvirt has not saved the memory to the end", remedy=_ROOM)
        facts: MemoryHead = {"snapshot": name, "awake": awake}
        hibernate.compress_file(self.conn, self.depot, self.tree, saved, os.path.join(place, f"{name}.zst"), facts)

    def _register(self, name: str) -> None:
        """Make libvirt's entry, so that nothing moves or removes the machine without its snapshot."""
        root = ET.Element("domainsnapshot")
        for tag, text in (
            ("name", name),
            ("description", self.description),
            ("state", "shutoff"),
            ("creationTime", str(int(time.time()))),
        ):
            if text:
                ET.SubElement(root, tag).text = metadata.clean(text)
        ET.SubElement(root, "memory", snapshot="no")
        _disks(root, "internal")
        root.append(domain_xml.parse(self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
        self.domain.snapshotCreateXML(domain_xml.to_text(root), libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE)

    def drop(self, name: str) -> None:
        """Delete all parts of a snapshot; its entry goes first."""
        if name in (each.getName() for each in self.domain.listAllSnapshots(0)):
            self.domain.snapshotLookupByName(name, 0).delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
        if name in _inner(self.path):
            if self.domain.isActive():
                self._monitor("blockdev-snapshot-delete-internal-sync", name=name)
            else:
                self._qemu_img("-d", name)
        # The names of snapshots in the disk's file are not trusted.
        for ending in ENDINGS if plan.is_name(name) else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory(self.path), name + ending))
        with contextlib.suppress(OSError):
            os.rmdir(directory(self.path))

    def revert(self, name: str) -> None:
        """Return the machine to a snapshot. Its state now is lost; its definition for the next start stays."""
        head = self.head(name)
        before = self.observed.state
        if head is None:
            self._revert_disk(name)
            if before in ("running", "paused"):
                self.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if before == "paused" else 0)
            return
        with hibernate.unpacked(self.depot, self.uuid, memory_file(self.path, name)) as saved:
            # By now the memory is known to be undamaged, and nothing is lost yet.
            self._revert_disk(name)
            config, values = self.observed.defined

            def edit(tree: ET.Element) -> None:
                domain_xml.put_metadata(tree, values)
                domain_xml.edit(tree, changes.to_keep(config, domain_xml.read(tree)))

            hibernate.edit_saved(self.conn, saved, edit)
            self.conn.restoreFlags(saved, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
            monitor.activate(self.domain)
        if head.get("awake"):
            self.domain.resume()
            with events_of(self.hypervisor).of(self.uuid) as woken:
                self.clock_set = hibernate.set_clock(self.domain, woken)

    def _revert_disk(self, name: str) -> None:
        if self.domain.isActive():
            self.domain.destroy()
        hibernate.discard(self.depot, self.uuid)
        power.restore_autostart(self.domain, self.tree)
        # By its number, because qemu-img takes a name that looks like a number for one.
        self._qemu_img("-a", _inner(self.path)[name])


def _disks(root: ET.Element, kind: str) -> None:
    disks = ET.SubElement(root, "disks")
    for name in (domain_xml.ROOT_DISK, domain_xml.SEED_DISK):
        ET.SubElement(disks, "disk", name=name, snapshot=kind if name == domain_xml.ROOT_DISK else "no")


def _memory_only(name: str, path: str) -> str:
    root = ET.Element("domainsnapshot")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "memory", snapshot="external", file=path)
    _disks(root, "no")
    return domain_xml.to_text(root)


class Batch(BatchBase):
    """One run of the module ``machine_snapshot``."""

    def __init__(self, params: Params, check_mode: bool) -> None:
        super().__init__(params, check_mode, max(2, os.cpu_count() or 2))
        if not params["all"]:
            plan.check_name(params["snapshot"])

    def one(self, hypervisor: Hypervisor, number: int, entry: Entry) -> Result:
        """The result of one machine."""

        def work() -> Result:
            key = entry.get("uuid") or entry.get("name")
            if not key or set(entry) - {"uuid", "name"}:
                raise GridError(
                    "invalid_machine",
                    "a machine is named by uuid or name, and nothing else",
                    remedy="Give uuid or name",
                )
            uuid = disk_source.find(hypervisor, str(key))
            self.claim(number, uuid)
            with disk_source.held(hypervisor, self.depot, self.locks, uuid, self.params["timeout"]) as (found, dummy):
                with translated(f"snapshot {self.params['state']}"):
                    return dict(self._held(Machine(hypervisor, self.depot, found, self.params["description"]), number))

        return attempt(label(entry), work, kind="machine", tried=f"snapshot {self.params['state']}")

    def _held(self, machine: Machine, number: int) -> SnapshotRow:
        """The result of a machine whose lock is held."""
        params = self.params
        copies.refuse_moving(machine.observed.moving, machine.observed.incoming)
        seen = machine.seen()
        steps = plan.decide(params["state"], seen, params["snapshot"], params["memory"])
        head = next((machine.head(step.name) for step in steps if step.kind == "revert"), None)
        before = sorted(seen.listed)
        if not self.check_mode:
            for step in steps:
                with translated(str(step)):
                    machine.do(step, params["memory"])
        gone = {step.name for step in steps if step.kind == "drop"}
        after = sorted((seen.listed - gone) | {step.name for step in steps if step.kind == "take"})
        state = plan.end(steps, seen, bool(head.get("awake")) if head is not None else None)
        name = machine.domain.name()
        if steps:
            reverted = {"reverted_to": params["snapshot"]} if params["state"] == "reverted" else {}
            self.diffs[number] = diff(f"machine {name}", {"snapshots": before}, {"snapshots": after, **reverted})
        return {
            "name": name,
            "uuid": machine.uuid,
            "changed": bool(steps),
            "actions": [str(step) for step in steps],
            "state": state,
            "snapshots": after,
            "consistent": machine.consistent,
            "clock_set": machine.clock_set,
        }
