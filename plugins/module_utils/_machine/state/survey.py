# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What machines are: the facts that the store and the inventory are made of."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    connect,
    libvirt,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import disk_base
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.changes import pending
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate, snapshot_files
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import read_qcow2
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe, usage
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.addresses import NOWHERE, Finder, Found
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

Facts = t.Dict[str, t.Any]

# Seconds between two looks at those who have no address yet; DHCP servers tell nobody when they give one.
_LOOK = 0.5

_CARRIED = (
    "owner",
    "image",
    "generation",
    "site",
    "goal",
    "tags",
    "user",
    "python",
    "packages",
    "users",
    "address",
    "wishes",
)

_NOW = (
    *(
        "vcpus",
        "vcpus_max",
        "memory",
        "memory_max",
        "network",
        "extra_networks",
        "mac",
        "boot",
        "autostart",
        "description",
    ),
    *("cpu_shares", "cpu_limit", "disk_io", "machine_type", "virtualization"),
)
"""What a machine has now, or will have at its next start where it doesn't run."""


def facts(domain: t.Any) -> tuple[Facts, t.Any]:
    """A domain's facts without its addresses, and its live XML tree where it runs."""
    tree = observe.configured(domain)
    state = observe.state_of(domain)
    values = metadata.read(tree)
    identity = {"name": domain.name(), "uuid": domain.UUIDString(), "state": state}
    if values is None or values["uuid"] != identity["uuid"]:
        return {**identity, "foreign": True}, None
    autostart = {"autostart": bool(domain.autostart())}
    config = {**domain_xml.read(tree), **autostart}
    live_tree = observe.running(domain) if state != "stopped" else None
    live = {**domain_xml.read(live_tree), **autostart} if live_tree is not None else None
    waiting = pending(config, live)
    now = live or config
    kept = _kept(config["disk_path"]) if state == "stopped" else None
    if kept is not None:
        identity["state"] = "hibernated"
    return {
        **identity,
        "foreign": False,
        "memory_file": kept,
        **{key: values[key] for key in _CARRIED},
        **{key: now[key] for key in _NOW},
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


def _kept(disk: str | None) -> dict[str, t.Any] | None:
    """The file with a hibernated machine's memory."""
    for path in hibernate.beside(disk).values():
        with contextlib.suppress(OSError):
            return {"path": path, "size": os.path.getsize(path)}
    return None


def _disk_size(path: str | None) -> int | None:
    try:
        file = read_qcow2(path) if path else None
    except (GridError, OSError):
        return None
    return file.size if file else None


class Survey:
    """One run of the module ``machine_info``."""

    def __init__(self, hypervisor: Hypervisor, leases: t.Mapping[str, t.Any] | None = None) -> None:
        self.conn = hypervisor.conn
        self.events = hypervisor.events
        self.finder = Finder(self.conn, leases)
        self.found: dict[str, Facts] = {}
        self._running: dict[str, tuple[t.Any, t.Any]] = {}

    def look(self, wanted: t.Sequence[str] | None) -> list[Facts]:
        """All domains, or those named by uuid or name, in their order; what isn't here is told as absent."""
        with translated("list the machines"):
            domains = {domain.UUIDString(): domain for domain in self.conn.listAllDomains(0)}
            names = {domain.name(): uuid for uuid, domain in domains.items()}
        if wanted is None:
            chosen: list[str] = [names[name] for name in sorted(names)]
        else:
            chosen = [each.lower() if each.lower() in domains else names.get(each, each) for each in wanted]
        return [self._one(domains.get(uuid), uuid) for uuid in dict.fromkeys(chosen)]

    def _one(self, domain: t.Any, key: str) -> Facts:
        absent = {
            "name": None,
            "uuid": None,
            ("uuid" if key.count("-") == 4 and len(key) == 36 else "name"): key,
            "state": "absent",
            "foreign": False,
        }
        if domain is None:
            return absent
        try:
            told, live = facts(domain)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return absent
            raise
        self.found[told["uuid"]] = told
        self._mark_lost(told)
        if live is not None and told["state"] == "running":
            self._running[told["uuid"]] = (domain, live)
        return told

    def _fill(self, uuids: t.Sequence[str]) -> None:
        results: list[Found] = self.finder.find([self._running[uuid] for uuid in uuids])
        for uuid, found in zip(uuids, results):
            if found is not NOWHERE:
                self.found[uuid].update(addresses=found.addresses, address_source=found.source)

    def _missing(self) -> list[str]:
        return [uuid for uuid in self._running if not self.found[uuid]["addresses"]]

    def addresses(self, timeout: float) -> None:
        """Find the addresses of the running ones; wait up to ``timeout`` seconds until all have one, and mark those
        that haven't."""
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
        """Look again at those without an address: an agent may be there now, the machine may be gone."""
        for uuid in self._missing():
            domain = self._running[uuid][0]
            try:
                told, live = facts(domain)
            except libvirt.libvirtError:
                told, live = {**self.found[uuid], "state": "absent"}, None
            self.found[uuid].update(told)
            if live is None or told["state"] != "running":
                del self._running[uuid]
                if not self._mark_lost(self.found[uuid]):
                    self._mark(uuid, None)
            else:
                self._running[uuid] = (domain, live)

    @staticmethod
    def _mark_lost(told: Facts) -> bool:
        if not disk_base.lost(told.get("pages"), told.get("paused_reason")):
            return False
        error = disk_base.source_lost(told["pages"])
        told.update(error.on(host=platform.node(), object=f"machine {told['name']}").result())
        return True

    def watch(self, window: float) -> None:
        """See what the running machines use in ``window`` seconds; nothing where that is 0."""
        if window > 0:
            usage.watch({uuid: pair[0] for uuid, pair in self._running.items()}, self.found, window)

    def _mark(self, uuid: str, timeout: float | None) -> None:
        told = self.found[uuid]
        error = GridError(
            "no_address",
            (
                f"no address was seen within {timeout:g} s; neither its agent, nor a DHCP lease, nor the neighbour table has one"
                if timeout is not None
                else f"it is {told['state']} now, so it has no address"
            ),
            host=platform.node(),
            object=f"machine {told['name']}",
            tried="wait for its address",
            remedy="Look at its console: virtuoso.grid.display; give it more time with wait_for_address",
            network=told["network"],
            mac=told["mac"],
        )
        told.update(error.result())


def survey(
    uri: str,
    wanted: t.Sequence[str] | None,
    timeout: float,
    window: float = 0,
    leases: t.Mapping[str, t.Any] | None = None,
) -> list[Facts]:
    """The facts of machines on this host, as the module ``machine_info`` returns them."""
    with connect(uri, events=timeout > 0) as hypervisor:
        work = Survey(hypervisor, leases)
        with translated("read the machines"):
            results = work.look(wanted)
        work.addresses(timeout)
        work.watch(window)
        return results
