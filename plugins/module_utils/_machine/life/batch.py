# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``machine``: brings many machines to the wanted state, and returns a result for each."""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import capabilities, domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    libvirt,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Display, Metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import reconcile
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import Disk, Observed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import (
    Parsed,
    check_password,
    label,
    parse_entry,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import MachineRow, Wanted
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk, hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.batch_base import BatchBase, Entry, Params
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.lifecycle import Machine
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.subject import Host
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt

# Most of the time is spent waiting for guests: many machines may wait, few may work (option parallel).
_WAITING = 64

_SHOWN = ("owner", "site", "goal", "generation", "tags", "image", "packages", "user", "python")


class Batch(BatchBase):
    """One run of the module ``machine``."""

    def __init__(self, params: Params, check_mode: bool) -> None:
        super().__init__(params, check_mode, _WAITING)
        self._networks: dict[str, bool] = {}
        self._parsed: list[Parsed | GridError] = []
        self._shared: Host | None = None

    def begin(self, hypervisor: Hypervisor) -> None:
        """Check the entries in their order, so that of two for one machine the first one counts."""
        self._shared = self._host(hypervisor)
        self._parsed = [self._checked(number, entry) for number, entry in enumerate(self.params["machines"])]

    def _host(self, hypervisor: Hypervisor) -> Host:
        params = self.params
        virtualization = params["virtualization"]
        if virtualization == "auto":
            virtualization = capabilities.virtualization().kind
        return Host(
            hypervisor=hypervisor,
            depot=self.depot,
            overlays=disk.Overlays(),
            virtualization=virtualization,
            machine_type=params["machine_type"] or "q35",
            timeout=params["timeout"],
            force=params["force"],
            slots=threading.Semaphore(max(1, params["parallel"] or max(2, os.cpu_count() or 2))),
        )

    def _checked(self, number: int, entry: Entry) -> Parsed | GridError:
        """The parsed entry, or what is wrong with it."""
        try:
            parsed = parse_entry(entry)
            self.claim(number, parsed.uuid, parsed.name)
            return parsed
        except GridError as exc:
            return exc

    def one(self, hypervisor: Hypervisor, number: int, entry: Entry) -> Result:
        """The result of one machine."""
        host, checked = t.cast(Host, self._shared), self._parsed[number]

        def work() -> Result:
            if isinstance(checked, GridError):
                raise checked
            uuid, name, wanted = checked
            if uuid is None:
                domain = observe.find_domain(host.hypervisor.conn, None, name)[0]
                uuid = domain.UUIDString() if domain is not None else None
                self.claim(number, uuid)
            holding = self.locks.of(uuid, host.timeout) if self.locks and uuid else contextlib.nullcontext()
            with holding:
                return dict(self._reconcile(host, number, uuid, name, wanted))

        identity = {"uuid": entry.get("uuid") if isinstance(entry, t.Mapping) else None}
        return {**identity, **attempt(label(entry), work, kind="machine", tried=f"state {self.params['state']}")}

    def _reconcile(
        self, host: Host, number: int, uuid: str | None, name: str | None, wanted: Wanted | None
    ) -> MachineRow:
        state = self.params["state"]
        with translated("look at the machine"):
            domain, tree, observed = observe.observe(host.hypervisor.conn, self.depot, uuid, name)
        uuid = uuid or (domain.UUIDString() if domain is not None else None)
        desired = self._desired(wanted, uuid) if wanted is not None else None
        decision = self._decide(host, observed, uuid, desired, state)
        # Without a uuid there is no such machine, and no step
        machine = Machine(host, uuid or "", desired, domain, tree)
        if decision.steps and not self.check_mode:
            machine.perform(decision)
        result = self._result(machine, observed, decision, uuid, name)
        if decision.steps:
            self.diffs[number] = self._difference(
                label({"name": result["name"], "uuid": uuid}), desired, observed, decision
            )
        return result

    def _desired(self, wanted: Wanted, uuid: str | None) -> Wanted:
        """What the machine should be, with its display's password."""
        password = (self.params["display_passwords"] or {}).get(uuid)
        return {**wanted, "display_password": check_password(password) if password is not None else None}

    def _decide(
        self, host: Host, observed: Observed, uuid: str | None, wanted: Wanted | None, state: str
    ) -> reconcile.Decision:
        if wanted is None or state == "absent":
            decision = reconcile.decide_power(observed, state, self.params.get("discard", False))
            return self._checked_memory(observed, decision, uuid)
        layer_path = self.depot.layer(wanted["image"]["digest"])
        compared = wanted
        if observed.config is not None and wanted["cpu_shares"] is None:
            compared = {**wanted, "cpu_shares": observe.default_shares()}
        decision = reconcile.decide(
            compared,
            observed,
            state,
            layer=disk.read_qcow2(layer_path),
            layer_path=layer_path,
            missing=self.depot.chain(wanted["image"]["digest"]).missing,
            layer_may_come=self.check_mode,
            discard=self.params.get("discard", False),
            grow_filesystem=self.params.get("grow_filesystem", False),
        )
        if any(step.kind == "define" or step.field in ("network", "extra_networks") for step in decision.steps):
            for network in (wanted["network"], *wanted["extra_networks"]):
                self._require_network(host, network)
        return self._checked_memory(observed, decision, uuid)

    def _checked_memory(self, observed: Observed, decision: reconcile.Decision, uuid: str | None) -> reconcile.Decision:
        """The decision, after a check that a memory to resume from fits the machine; in check mode too.

        :raises GridError: ``hibernation_invalid``, ``hibernation_foreign``, ``hibernation_stale``.
        """
        if uuid is not None and any(step.kind == "wake" for step in decision.steps):
            config, values = observed.defined
            hibernate.check(self.depot, uuid, values["generation"], config["disk_path"])
        return decision

    def _require_network(self, host: Host, network: str) -> None:
        with self._once:
            if network not in self._networks:
                try:
                    self._networks[network] = bool(host.hypervisor.conn.networkLookupByName(network).isActive())
                except libvirt.libvirtError:
                    self._networks[network] = False
        if not self._networks[network]:
            raise GridError(
                "network_missing",
                f"the network {network} is not there or not active",
                remedy="Run the playbook virtuoso.grid.setup, or name a network that is there",
                network=network,
            )

    def _result(
        self,
        machine: Machine,
        observed: Observed,
        decision: reconcile.Decision,
        uuid: str | None,
        name: str | None,
    ) -> MachineRow:
        values = decision.metadata or observed.metadata
        state = decision.state
        display: Display = {"type": "none", "host": None, "port": None}
        mac = machine.wanted["mac"] if machine.wanted else None
        pages = any(step.kind == "create_paging_disk" for step in decision.steps)
        if machine.domain is not None and state != "absent":
            with translated("look at the machine afterwards"):
                tree = observe.running(machine.domain)
                if not self.check_mode and state != "hibernated":
                    state = observe.state_of(machine.domain)
            now = domain_xml.read(tree)
            display, mac, pages = domain_xml.display_of(tree), now["mac"], now["pages"] is not None
        return {
            "name": values["name"] if values else name,
            "uuid": uuid,
            "changed": bool(decision.steps),
            "actions": decision.actions,
            "changes": decision.changes,
            "state": state,
            "restart_required": bool(decision.pending),
            "pending": decision.pending,
            "ignored": decision.ignored,
            "pages": pages,
            "display": display,
            "mac": mac,
            "clock_set": machine.clock_set,
        }

    def _difference(
        self, name: str, wanted: Wanted | None, observed: Observed, decision: reconcile.Decision
    ) -> dict[str, str]:
        before = _shown(*observed.defined, observed.disk, observed.state) if observed.config is not None else None
        if decision.state == "absent":
            return diff(f"machine {name}", before or {"files": "present"}, None)
        after = dict(before or {})
        if wanted is not None and decision.metadata is not None and before is None:
            after = {**_shown(wanted, decision.metadata, None, decision.state), "disk": wanted["disk"]}
        else:
            after["state"] = decision.state
            for step in decision.steps:
                if step.field:
                    after[step.field] = step.after
        if any(step.field == "display_password" for step in decision.steps):
            after["display_password"] = "(another, not shown)"
        return diff(f"machine {name}", before, after)


def _shown(model: Entry, values: Metadata, file: Disk | None, state: str) -> dict[str, object]:
    """The fields of a machine that a diff shows. Users are shown with their keys, which are public."""
    fields: t.Mapping[str, object] = values
    return {
        "state": state,
        **{field: model.get(field) for field in domain_xml.FIELDS},
        "display_password": "(not shown)" if model.get("display_password") else None,
        "disk": file.size if file else None,
        **{field: fields[field] for field in (*_SHOWN, "users")},
    }
