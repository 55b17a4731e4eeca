# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the decided steps on one machine: on libvirt and on its files."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import disk_io, domain_xml, metadata, monitor
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import (
    CpuLimit,
    Metadata,
    NewDomain,
    WantedDomain,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import changes, disk_base
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.changes import LIVE
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import cards
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.reconcile import Decision, Step
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk, seed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life import chain, plugging, power
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.subject import (
    Subject,
    domain_of,
    tree_of,
    wanted_of,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import agent, observe


def _undefine_flags() -> int:
    """Remove everything that belongs to a domain with it."""
    return (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )


class Machine(Subject):
    """One machine and its steps."""

    clock_set: bool | None = None
    """Whether the guest's clock was set after it was woken; ``None`` where it wasn't woken."""

    def perform(self, decision: Decision) -> None:
        """Do the steps, in their order.

        Changes of the configuration go to libvirt at once, before any change of power.

        :raises GridError: of the step that failed. The steps before it are done, and the next run finds them done.
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
            "grow_filesystem": lambda dummy: agent.grow_filesystem(domain_of(self)),
            "compress_memory": lambda dummy: power.compress(self),
            "discard_memory": lambda dummy: power.discard_memory(self),
            "remove": lambda dummy: self._remove(),
        }
        created = any(step.kind in ("create_disk", "create_paging_disk") for step in steps)
        # The others don't wait for one that has to shut down first, because that may take long.
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
        host, wanted = self.host, wanted_of(self)
        pages = wanted["pages"]
        if pages is not None and any(step.kind == "create_paging_disk" for step in decision.steps):
            path, backing = host.depot.paging_disks(self.uuid)[0], disk_base.export_uri(pages)
            own_size = pages["virtual_size"]
        else:
            path, backing = host.depot.disk(self.uuid), host.depot.layer(wanted["image"]["digest"])
            own_size = disk.require_qcow2(backing).size
        size = wanted.get("disk") or own_size
        name = os.path.basename(path)
        disk.create(
            host.depot, self.uuid, lambda staged: host.overlays.write(staged, backing, size), seed.image(wanted), name
        )

    def _write_seed(self, dummy: Decision) -> None:
        # A machine that moved has kept its MAC address.
        mac = domain_xml.read(tree_of(self))["mac"] if self.tree is not None else None
        disk.replace_seed(self.host.depot, self.uuid, seed.image(wanted_of(self), mac))

    def _define(self, decision: Decision) -> None:
        host, wanted, values = self.host, wanted_of(self), _metadata_of(decision)
        starts = any(step.kind == "start" for step in decision.steps)
        # The fields that only this room knows are left alone by build()
        shared = t.cast(WantedDomain, wanted)
        model: NewDomain = {
            **shared,
            "virtualization": host.virtualization,
            "machine_type": host.machine_type,
            "seed_path": host.depot.seed(self.uuid),
            **chain.for_definition(self),
        }
        self.tree = domain_xml.build(model, {**values, "started": starts})
        try:
            self.domain = host.hypervisor.conn.defineXML(domain_xml.to_text(self.tree))
        except libvirt.libvirtError as exc:
            if "already exists with uuid" in str(exc):
                raise observe.foreign(wanted["name"], "unknown", False) from exc
            raise
        if wanted.get("autostart"):
            self.domain.setAutostart(1)

    def _configure(self, decision: Decision) -> None:
        """Make the changes of the configuration all at once, and then those of the running machine that the guest needs
        no part in."""
        changed = {step.field: step.after for step in decision.steps if step.kind == "change"}
        described = any(step.kind == "metadata" for step in decision.steps) or "network" in changed
        if "autostart" in changed:
            domain_of(self).setAutostart(int(bool(changed.pop("autostart"))))
        if not changed and not described:
            return
        domain, tree = domain_of(self), tree_of(self)
        if "extra_networks" in changed:
            # A machine that moved has kept its MAC address.
            wanted = wanted_of(self)
            mac = domain_xml.read(tree)["mac"] or wanted["mac"]
            changed["extra_networks"] = cards(wanted["extra_networks"], mac, wanted["mtus"])
        domain_xml.edit(tree, changed)
        if described:
            domain_xml.put_metadata(tree, _metadata_of(decision))
        with translated("change the machine's configuration"):
            self.host.hypervisor.conn.defineXML(domain_xml.to_text(tree))
        with translated("change the running machine"):
            for step in decision.steps:
                if step.kind == "change" and step.when == LIVE and not step.asks:
                    self._change_live(step.field, step.after)
            if described and domain.isActive():
                values = _metadata_of(decision)
                self._set_metadata(values, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                title = domain_xml.title(values)
                domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, title, None, None, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def _ask_guest(self, decision: Decision) -> None:
        """Make the changes in which the guest must take part. They come last: it may take long, and refuse."""
        for step in decision.steps:
            if step.asks:
                with translated(str(step)):
                    self._change_live(step.field, step.after)

    def _set_metadata(self, values: Metadata, flags: int) -> None:
        domain_of(self).setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata.text(values), metadata.PREFIX, metadata.NAMESPACE, flags
        )

    def _change_live(self, field: str, value: changes.Value) -> None:
        domain, flags = domain_of(self), libvirt.VIR_DOMAIN_AFFECT_LIVE
        if field == "vcpus":
            plugging.set_vcpus(self, value)
        elif field == "memory":
            plugging.set_memory(self, value)
        elif field == "extra_networks":
            plugging.set_cards(self, value)
        elif field == "cpu_shares":
            domain.setSchedulerParametersFlags({"cpu_shares": value}, flags)
        elif field == "cpu_limit":
            domain.setSchedulerParametersFlags(_scheduler(value), flags)
        elif field == "disk_io":
            domain.setBlockIoTune(domain_xml.ROOT_DISK, disk_io.parameters(value), flags)
        elif field == "description":
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, value, None, None, flags)
        elif field == "display_password":
            domain.updateDeviceFlags(domain_xml.graphics_with_password(observe.running(domain), value), flags)

    def _grow(self, step: Step) -> None:
        size = t.cast(int, step.after)
        with translated(str(step)):
            if self.domain is not None and self.domain.isActive():
                monitor.activate(self.domain)
                self.domain.blockResize(domain_xml.ROOT_DISK, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            else:
                disk.grow_file(self._disk_path(), size)

    def _disk_path(self) -> str:
        path = domain_xml.read(self.tree)["disk_path"] if self.tree is not None else None
        return path or self.host.depot.disk(self.uuid)

    def _mark_started(self, started: bool) -> None:
        tree = tree_of(self)
        values = metadata.read(tree)
        if values is not None and values["started"] != started:
            metadata.put(tree, {**values, "started": started})
            self._set_metadata({**values, "started": started}, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def _start(self, decision: Decision) -> None:
        domain, tree = domain_of(self), tree_of(self)
        values = metadata.read(tree)
        first = any(step.kind == "define" for step in decision.steps) or not (values and values["started"])
        # Before the start: if a run is killed in between, a seed counts as used that isn't, which loses nothing.
        self._mark_started(True)
        try:
            with self.host.slots:
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as exc:
            if first:
                with contextlib.suppress(libvirt.libvirtError):
                    self._mark_started(False)
            pages = domain_xml.read(tree)["pages"]
            if pages is not None and "onnect to" in str(exc):
                raise disk_base.source_lost(pages) from exc
            raise

    def _resume(self) -> None:
        domain = domain_of(self)
        state = domain.state()[0]
        if state == libvirt.VIR_DOMAIN_PMSUSPENDED:
            domain.pMWakeup(0)
        elif state == libvirt.VIR_DOMAIN_PAUSED:
            chain.resume(self)

    def _continue(self) -> None:
        """Let a paused guest run. A memory that is still here was left by a run that was killed after it restored
        it."""
        power.discard_memory(self)
        self._resume()

    def _wake(self, decision: Decision) -> None:
        power.wake(self)
        config = observe.model_of(tree_of(self), None)
        live = observe.model_of(observe.running(domain_of(self)), None)
        # What changed while it was hibernated, or is being changed, and can change while it runs
        waiting = changes.to_catch_up(config, live)
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
        if observe.state_of(domain_of(self)) == "paused":
            # A paused guest can't react.
            self._resume()
        power.stop(self)

    def _remove(self) -> None:
        """Remove the domain first, then its files: nothing is ever defined without its disk."""
        if self.domain is not None:
            if self.domain.isActive():
                power.pull_plug(self)
            self.domain.undefineFlags(_undefine_flags())
        if os.path.isdir(self.host.depot.machines):
            disk.remove(self.host.depot, self.uuid)


def _metadata_of(decision: Decision) -> Metadata:
    """The metadata to be, of a decision that was given what the machine should be."""
    if decision.metadata is None:
        raise ValueError("the decision has no metadata")
    return decision.metadata


def _scheduler(limit: CpuLimit | None) -> dict[str, int]:
    """A limit of processor time for libvirt. A quota below 0 lifts it."""
    return {"vcpu_quota": -1} if limit is None else {"vcpu_period": limit["period"], "vcpu_quota": limit["quota"]}
