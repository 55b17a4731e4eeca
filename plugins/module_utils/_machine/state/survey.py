# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of the machines on a host, from which the store and the inventory are made."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    connect,
    libvirt,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import MachineModel
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import disk_base
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.changes import pending
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Facts, MemoryFile
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate, snapshot_files
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import read_qcow2
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe, usage
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.addresses import Finder
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.evidence import Found
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

# Seconds between two looks for machines without an address; DHCP servers don't announce their leases.
_LOOK = 0.5


def facts(domain: Domain) -> tuple[Facts, ET.Element | None]:
    """A domain's facts without its addresses and usage, and its live XML tree where it runs."""
    tree = observe.configured(domain)
    state = observe.state_of(domain)
    values = metadata.read(tree)
    uuid = domain.UUIDString()
    if values is None or values["uuid"] != uuid:
        return {"name": domain.name(), "uuid": uuid, "state": state, "foreign": True}, None
    autostart = bool(domain.autostart())
    config: MachineModel = {**domain_xml.read(tree), "autostart": autostart}
    live_tree = observe.running(domain) if state != "stopped" else None
    live: MachineModel | None = (
        {**domain_xml.read(live_tree), "autostart": autostart} if live_tree is not None else None
    )
    waiting = pending(config, live)
    now = live or config
    memory_file = _memory_file(config["disk_path"]) if state == "stopped" else None
    return {
        "name": domain.name(),
        "uuid": uuid,
        "state": "hibernated" if memory_file is not None else state,
        "foreign": False,
        "memory_file": memory_file,
        "owner": values["owner"],
        "image": values["image"],
        "generation": values["generation"],
        "site": values["site"],
        "goal": values["goal"],
        "tags": values["tags"],
        "user": values["user"],
        "python": values["python"],
        "packages": values["packages"],
        "users": values["users"],
        "address": values["address"],
        "wishes": values["wishes"],
        "vcpus": now["vcpus"],
        "vcpus_max": now["vcpus_max"],
        "memory": now["memory"],
        "memory_max": now["memory_max"],
        "network": now["network"],
        "extra_networks": now["extra_networks"],
        "mac": now["mac"],
        "boot": now["boot"],
        "autostart": now["autostart"],
        "description": now["description"],
        "cpu_shares": now["cpu_shares"],
        "cpu_limit": now["cpu_limit"],
        "disk_io": now["disk_io"],
        "machine_type": now["machine_type"],
        "virtualization": now["virtualization"],
        "disk": _disk_size(now["disk_path"]),
        "pages": now["pages"],
        "paused_reason": observe.paused_reason(domain),
        "display": domain_xml.display_of(live_tree if live_tree is not None else tree),
        "snapshots": snapshot_files.listed(domain, config["disk_path"]),
        "ordered": usage.ordered(values, config),
        "given": usage.given(domain, live),
        "usage": None,
        "addresses": [],
        "address_source": None,
        "restart_required": bool(waiting),
        "pending": waiting,
    }, live_tree


def _memory_file(disk: str | None) -> MemoryFile | None:
    """The file with a hibernated machine's memory. :param disk: the path of its disk."""
    for path in hibernate.files_beside(disk).values():
        with contextlib.suppress(OSError):
            return {"path": path, "size": os.path.getsize(path)}
    return None


def _disk_size(path: str | None) -> int | None:
    try:
        file = read_qcow2(path) if path else None
    except (GridError, OSError):
        return None
    return file.size if file else None


def _absent(key: str) -> Facts:
    """The facts of a machine that isn't here. :param key: the uuid or name that was asked for."""
    is_uuid = key.count("-") == 4 and len(key) == 36
    return {
        "name": None if is_uuid else key,
        "uuid": key if is_uuid else None,
        "state": "absent",
        "foreign": False,
    }


class Survey:
    """One run of the module ``machine_info``."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        leases: t.Mapping[str, object] | None = None,
        prefixes: t.Mapping[str, t.Iterable[object]] | None = None,
    ) -> None:
        self.conn = hypervisor.conn
        self.events = hypervisor.events
        self.finder = Finder(self.conn, leases, prefixes)
        self._refused: dict[str, tuple[str, ...]] = {}
        self.found: dict[str, Facts] = {}
        self.patient: t.Container[str] | None = None
        """uuids of those whose addresses are waited for; ``None`` for all"""
        self._running: dict[str, tuple[Domain, ET.Element]] = {}

    def look(self, wanted: t.Sequence[str] | None) -> list[Facts]:
        """The facts of all domains, or of those named by uuid or name, in their order. ``absent`` is one that isn't
        here."""
        with translated("list the machines"):
            domains = {domain.UUIDString(): domain for domain in self.conn.listAllDomains(0)}
            names = {domain.name(): uuid for uuid, domain in domains.items()}
        if wanted is None:
            chosen: list[str] = [names[name] for name in sorted(names)]
        else:
            chosen = [each.lower() if each.lower() in domains else names.get(each, each) for each in wanted]
        return [self._one(domains.get(uuid), uuid) for uuid in dict.fromkeys(chosen)]

    def _one(self, domain: Domain | None, key: str) -> Facts:
        if domain is None:
            return _absent(key)
        try:
            found, live = facts(domain)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return _absent(key)
            raise
        uuid = str(found["uuid"])
        self.found[uuid] = found
        self._mark_lost(found)
        if live is not None and found["state"] == "running":
            self._running[uuid] = (domain, live)
        return found

    def _fill(self, uuids: t.Sequence[str]) -> None:
        results: list[Found] = self.finder.find([self._running[uuid] for uuid in uuids])
        for uuid, found in zip(uuids, results):
            self._refused[uuid] = found.refused
            if found.addresses:
                self.found[uuid]["addresses"] = found.addresses
                self.found[uuid]["address_source"] = found.source

    def _missing(self) -> list[str]:
        return [
            uuid
            for uuid in self._running
            if not self.found[uuid]["addresses"] and (self.patient is None or uuid in self.patient)
        ]

    def addresses(self, timeout: float) -> None:
        """Find the addresses of the running machines. Wait up to ``timeout`` seconds until all have one; those without
        one then fail."""
        with translated("find the machines' addresses"):
            self._fill(list(self._running))
        if timeout <= 0 or not self._missing():
            return
        wake = threading.Event()

        def probe() -> None:
            with translated("wait for the machines' addresses"):
                self._refresh()
                self._fill(self._missing())
            missing = self._missing()
            if missing:
                raise Pending(f"{len(missing)} machines without address")

        try:
            if self.events is None:
                wait_for(probe, timeout, what="an address of each machine", wake=wake, interval=_LOOK)
            else:
                with self.events.of() as wake:
                    wait_for(probe, timeout, what="an address of each machine", wake=wake, interval=_LOOK)
        except GridError as exc:
            if exc.code != "timed_out":
                raise
            for uuid in self._missing():
                self._mark(uuid, timeout)

    def _refresh(self) -> None:
        """Look again at machines without an address: an agent may answer now, the machine may be gone."""
        for uuid in self._missing():
            domain = self._running[uuid][0]
            live: ET.Element | None = None
            try:
                found, live = facts(domain)
                self.found[uuid].update(found)
            except libvirt.libvirtError:
                self.found[uuid]["state"] = "absent"
            if live is None or self.found[uuid]["state"] != "running":
                del self._running[uuid]
                if not self._mark_lost(self.found[uuid]):
                    self._mark(uuid, None)
            else:
                self._running[uuid] = (domain, live)

    @staticmethod
    def _mark_lost(found: Facts) -> bool:
        """Have a machine fail that lost what it pages from; whether it did."""
        pages = found.get("pages")
        if pages is None or not disk_base.lost(pages, found.get("paused_reason")):
            return False
        _fail(found, disk_base.source_lost(pages))
        return True

    def watch(self, window: float) -> None:
        """Measure what the running machines use in ``window`` seconds; 0 for no measurement."""
        if window > 0:
            usage.watch({uuid: pair[0] for uuid, pair in self._running.items()}, self.found, window)

    def _mark(self, uuid: str, timeout: float | None) -> None:
        """Have a machine fail that has no address.

        :param timeout: seconds that it had, ``None`` where it doesn't run any more.
        """
        found = self.found[uuid]
        if timeout is None:
            problem = f"it is {found['state']} now, so it has no address"
        else:
            problem = (
                f"no address was seen within {timeout:g} s; neither its agent, nor a DHCP lease, nor the neighbour "
                "table has one"
            )
            ordered = found.get("address")
            if ordered is not None:
                problem += f", and it doesn't answer for {ordered['ip']}, which it was ordered with"
        remedy = "Look at its console: virtuoso.grid.display; give it more time with wait_for_address"
        refused = self._refused.get(str(found["uuid"]))
        if refused:
            problem += (
                f". It claims {', '.join(refused[:4])} itself, which is believed only within the prefixes of its"
                f" network {found['network']}, and not where another host or machine has it"
            )
            remedy = "If the network has such addresses, give its prefixes in virtuoso_network_prefixes. " + remedy
        error = GridError(
            "no_address",
            problem,
            tried="wait for its address",
            remedy=remedy,
            network=found["network"],
            mac=found["mac"],
        )
        _fail(found, error)


def _fail(found: Facts, error: GridError) -> None:
    error.on(host=platform.node(), object=f"machine {found['name']}")
    found.update(t.cast(Facts, error.result()))


def survey(
    uri: str,
    wanted: t.Sequence[str] | None,
    timeout: float,
    window: float = 0,
    leases: t.Mapping[str, object] | None = None,
    patient: t.Container[str] | None = None,
    prefixes: t.Mapping[str, t.Iterable[object]] | None = None,
) -> list[Facts]:
    """The facts of machines on this host, as the module ``machine_info`` returns them.

    :param wanted: uuids or names; ``None`` for all.
    :param timeout: seconds to wait for the addresses of those in ``patient`` (uuids), or of all.
    """
    with connect(uri, events=timeout > 0) as hypervisor:
        work = Survey(hypervisor, leases, prefixes)
        work.patient = patient
        with translated("read the machines"):
            results = work.look(wanted)
        work.addresses(timeout)
        work.watch(window)
        return results
