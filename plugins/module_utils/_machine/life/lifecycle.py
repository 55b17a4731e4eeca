# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effects on one machine: each step that was decided, done on libvirt and on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import disk_io, domain_xml, metadata, monitor
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    libvirt,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import changes, disk_base
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.changes import LIVE
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import cards
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.reconcile import Decision, Step
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk, seed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life import chain, plugging, power
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import agent, observe


def _undefine_flags() -> int:
    """Everything that belongs to a domain goes with it."""
    return (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )


class Starts:
    """Lets guests run only when no other is being started.

    A guest's boot keeps a processor busy for seconds, so those started first would slow down the start of all others.
    Each is started paused and resumed as soon as none is left to be started; whoever is killed in between finds it
    paused and resumes it.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._coming = 0

    def announce(self) -> None:
        """One more is going to be started soon."""
        with self._change:
            self._coming += 1

    def over(self) -> None:
        """It is started, or will not be."""
        with self._change:
            self._coming -= 1
            self._change.notify_all()

    def wait(self) -> None:
        """Return when none is left."""
        with self._change:
            self._change.wait_for(lambda: self._coming == 0)


@dataclasses.dataclass
class Host:
    """What all machines of a run share."""

    hypervisor: Hypervisor
    depot: disk.Depot
    overlays: disk.Overlays
    virtualization: str
    machine_type: str
    timeout: float
    force: bool
    slots: threading.Semaphore
    """Held while something is done that keeps the host's processors busy."""
    starts: Starts = dataclasses.field(default_factory=Starts)


class Machine:
    """One machine and its steps. Not thread-safe; each machine has its own."""

    def __init__(self, host: Host, uuid: str, wanted: t.Mapping[str, t.Any] | None, domain: t.Any, tree: t.Any) -> None:
        self.host = host
        self.uuid = uuid
        self.wanted = wanted
        self.domain = domain
        self.tree = tree
        self.clock_set: bool | None = None
        """Whether the guest was told the time after it was woken; ``None`` where it wasn't woken."""

    def perform(self, decision: Decision) -> None:
        """Do the steps, in their order.

        Changes of the configuration go to libvirt in one piece, before any change of power.
        :raises GridError: of the step that failed; those before it are done, and the next run finds them done.
        """
        steps = decision.steps
        handlers: dict[str, t.Callable[[Decision], None]] = {
            "create_disk": self._create_files,
            "create_paging_disk": self._create_files,
            "settle": lambda dummy: chain.settle(self),
            "repoint": lambda dummy: chain.repoint(self),
            "write_seed": self._write_seed,
            "define": self._define,
            "stop": lambda dummy: self._stop(),
            "start": self._start,
            "resume": lambda dummy: self._continue(),
            "pause": lambda dummy: power.pause(self),
            "reboot": lambda dummy: power.reboot(self),
            "reset": lambda dummy: power.reset(self),
            "hibernate": lambda dummy: power.sleep(self),
            "wake": self._wake,
            "grow_filesystem": lambda dummy: agent.grow_filesystem(self.domain),
            "compress_memory": lambda dummy: power.compress(self),
            "discard_memory": lambda dummy: power.discard_memory(self),
            "remove": lambda dummy: self._remove(),
        }
        created = any(step.kind in ("create_disk", "create_paging_disk") for step in steps)
        # One that has to shut down first may take its time: the others don't wait for it.
        started = any(step.kind == "start" for step in steps)
        coming = started and not any(step.kind == "stop" for step in steps)
        if coming:
            self.host.starts.announce()
        try:
            self._configure(decision)
            for step in steps:
                if step.kind == "grow_disk":
                    self._grow(step)
                elif step.kind in handlers and not (created and step.kind == "write_seed"):
                    with translated(str(step)):
                        handlers[step.kind](decision)
            self._ask_guest(decision)
        finally:
            if coming:
                self.host.starts.over()
        if started and not any(step.kind == "pause" for step in steps):
            self.host.starts.wait()
            with translated("let the guest run"):
                self._resume()

    def _create_files(self, decision: Decision) -> None:
        host, wanted = self.host, self.wanted
        path, backing = host.depot.disk(self.uuid), host.depot.layer(wanted["image"]["digest"])
        if any(step.kind == "create_paging_disk" for step in decision.steps):
            path, backing = host.depot.paging_disks(self.uuid)[0], disk_base.export_uri(wanted["pages"])
            size = wanted.get("disk") or wanted["pages"]["virtual_size"]
        else:
            size = wanted.get("disk") or disk.read_qcow2(backing).size
        name = os.path.basename(path)
        disk.create(
            host.depot, self.uuid, lambda staged: host.overlays.write(staged, backing, size), seed.image(wanted), name
        )

    def _write_seed(self, dummy: Decision) -> None:
        disk.replace_seed(self.host.depot, self.uuid, seed.image(self.wanted))

    def _define(self, decision: Decision) -> None:
        host = self.host
        starts = any(step.kind == "start" for step in decision.steps)
        model = {
            **self.wanted,
            "virtualization": host.virtualization,
            "machine_type": host.machine_type,
            "seed_path": host.depot.seed(self.uuid),
            **chain.for_definition(self),
        }
        self.tree = domain_xml.build(model, {**decision.metadata, "started": starts})
        try:
            self.domain = host.hypervisor.conn.defineXML(domain_xml.to_text(self.tree))
        except libvirt.libvirtError as exc:
            if "already exists with uuid" in str(exc):
                raise observe.foreign(self.wanted["name"], "unknown", False) from exc
            raise
        if self.wanted.get("autostart"):
            self.domain.setAutostart(1)

    def _configure(self, decision: Decision) -> None:
        """Everything that is written in the domain: the configuration at once, then what is live."""
        changed = {step.field: step.after for step in decision.steps if step.kind == "change"}
        told = any(step.kind == "metadata" for step in decision.steps) or "network" in changed
        if "autostart" in changed:
            self.domain.setAutostart(int(changed.pop("autostart")))
        if not changed and not told:
            return
        if "extra_networks" in changed:
            # One that moved has kept its MAC address.
            mac = domain_xml.read(self.tree)["mac"] or self.wanted["mac"]
            changed["extra_networks"] = cards(self.wanted["extra_networks"], mac, self.wanted["mtus"])
        domain_xml.edit(self.tree, changed)
        if told:
            domain_xml.put_metadata(self.tree, decision.metadata)
        with translated("change the machine's configuration"):
            self.host.hypervisor.conn.defineXML(domain_xml.to_text(self.tree))
        with translated("change the running machine"):
            for step in decision.steps:
                if step.kind == "change" and step.when == LIVE and not step.asks:
                    self._change_live(step.field, step.after)
            if told and self.domain.isActive():
                self._tell_metadata(decision.metadata, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                title = domain_xml.title(decision.metadata)
                self.domain.setMetadata(
                    libvirt.VIR_DOMAIN_METADATA_TITLE, title, None, None, libvirt.VIR_DOMAIN_AFFECT_LIVE
                )

    def _ask_guest(self, decision: Decision) -> None:
        """What the guest must do its part in comes last: it may take its time, and refuse."""
        for step in decision.steps:
            if step.asks:
                with translated(str(step)):
                    self._change_live(step.field, step.after)

    def _tell_metadata(self, values: metadata.Metadata, flags: int) -> None:
        self.domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata.text(values), metadata.PREFIX, metadata.NAMESPACE, flags
        )

    def _change_live(self, field: str, value: t.Any) -> None:
        domain, flags = self.domain, libvirt.VIR_DOMAIN_AFFECT_LIVE
        if field == "vcpus":
            plugging.set_vcpus(self, value)
        elif field == "memory":
            plugging.set_memory(self, value)
        elif field == "extra_networks":
            plugging.set_cards(self, value)
        elif field == "cpu_shares":
            domain.setSchedulerParametersFlags({"cpu_shares": value}, flags)
        elif field == "cpu_limit":
            # A quota below 0 lifts the limit.
            limit = (
                {"vcpu_quota": -1} if value is None else {"vcpu_period": value["period"], "vcpu_quota": value["quota"]}
            )
            domain.setSchedulerParametersFlags(limit, flags)
        elif field == "disk_io":
            domain.setBlockIoTune(domain_xml.ROOT_DISK, disk_io.parameters(value), flags)
        elif field == "description":
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, value, None, None, flags)
        elif field == "display_password":
            domain.updateDeviceFlags(domain_xml.graphics_with_password(observe.running(domain), value), flags)

    def _grow(self, step: Step) -> None:
        with translated(str(step)):
            if self.domain is not None and self.domain.isActive():
                monitor.activate(self.domain)
                self.domain.blockResize(domain_xml.ROOT_DISK, step.after, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            else:
                disk.grow_file(self._disk_path(), step.after)

    def _disk_path(self) -> str:
        path = domain_xml.read(self.tree)["disk_path"] if self.tree is not None else None
        return path or self.host.depot.disk(self.uuid)

    def _mark_started(self, started: bool) -> None:
        values = metadata.read(self.tree)
        if values["started"] != started:
            metadata.put(self.tree, {**values, "started": started})
            self._tell_metadata({**values, "started": started}, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def _start(self, decision: Decision) -> None:
        first = any(step.kind == "define" for step in decision.steps) or not metadata.read(self.tree)["started"]
        # Before the start: whoever is killed in between takes a seed for used that isn't, which loses nothing.
        self._mark_started(True)
        try:
            with self.host.slots:
                self.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as exc:
            if first:
                with contextlib.suppress(libvirt.libvirtError):
                    self._mark_started(False)
            pages = domain_xml.read(self.tree)["pages"]
            if pages is not None and "onnect to" in str(exc):
                raise disk_base.source_lost(pages) from exc
            raise

    def _resume(self) -> None:
        state = self.domain.state()[0]
        if state == libvirt.VIR_DOMAIN_PMSUSPENDED:
            self.domain.pMWakeup(0)
        elif state == libvirt.VIR_DOMAIN_PAUSED:
            chain.resume(self)

    def _continue(self) -> None:
        """Let a paused guest run. A memory that is still here was left by a run that was killed between restoring it
        and this."""
        power.discard_memory(self)
        self._resume()

    def _wake(self, decision: Decision) -> None:
        power.wake(self)
        config, live = (
            observe.with_shares(domain_xml.read(tree)) for tree in (self.tree, observe.running(self.domain))
        )
        # What was changed meanwhile, or is being changed, and can be while it runs
        waiting = changes.to_catch_up({**config, "autostart": None}, {**live, "autostart": None})
        asking = [pair for pair in waiting if changes.asks(pair[0], live, pair[1])]
        for field, value in waiting:
            if (field, value) not in asking:
                self._change_live(field, value)
        if any(step.kind == "pause" for step in decision.steps):
            return
        self._resume()
        if not any(step.kind == "stop" for step in decision.steps):
            for field, value in asking:
                self._change_live(field, value)
        self.clock_set = power.set_clock(self)

    def _stop(self) -> None:
        if observe.state_of(self.domain) == "paused":
            # A paused guest hears nothing.
            self._resume()
        power.stop(self)

    def _remove(self) -> None:
        """The domain first, then its files: nothing is ever defined without its disk."""
        if self.domain is not None:
            if self.domain.isActive():
                power.pull_plug(self)
            self.domain.undefineFlags(_undefine_flags())
        if os.path.isdir(self.host.depot.machines):
            disk.remove(self.host.depot, self.uuid)
