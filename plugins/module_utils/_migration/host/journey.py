# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a move, each on one of its two hosts, for many machines at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    connect,
    libvirt,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import check_uuid, label
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import check_text
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe, survey
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import (
    arriving,
    looking,
    marking,
    sending,
    sleeping,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import Answer, Entry, Facts, Host, Params
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import QUIET_SECONDS, Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._run import attempt

STEPS = ("look", "prepare", "send", "receive", "settle")

_TRIED = {
    "look": "look at the machine",
    "prepare": "see whether it can come here, and make room",
    "send": "send the machine",
    "receive": "receive the machine",
    "settle": "settle which copy is the true one",
}


def _facts(domain: Domain) -> Facts:
    """The machine as the module ``machine_info`` returns it."""
    return t.cast(Facts, survey.facts(domain)[0])


class Journey:
    """One run of the module ``machine_migrate``."""

    def __init__(self, params: Params, check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self.depot = disk.Depot(params["path"])
        self.overlays = disk.Overlays()
        self.progress = Progress(params["progress_file"], quiet=QUIET_SECONDS)
        self._facts: Host = {}
        self._sender: sending.Sender | None = None
        self._hypervisor: Hypervisor = t.cast(Hypervisor, None)
        self._locks: disk.Locks | None = None
        self._slots = threading.Semaphore(max(1, params["parallel"]))

    @property
    def conn(self) -> Connect:
        """The connection to this host's libvirt."""
        return self._hypervisor.conn

    def run(self) -> dict[str, object]:
        """Handle all entries; see the module's RETURN."""
        step, entries = self.params["step"], self.params["machines"]
        if not entries and not self.params["facts"] and not self.params["unsettled"]:
            return {"changed": False, "machines": []}
        self.depot.require()
        with (
            connect(self.params["uri"], events=step in ("send", "receive", "settle")) as self._hypervisor,
            contextlib.ExitStack() as stack,
        ):
            if step in ("look", "prepare") and (self.params["facts"] or step == "prepare"):
                self._facts = looking.host(self.conn, self.depot)
            # To look makes nothing, the directory of the lock neither.
            if (step != "look" and not self.check_mode) or (step == "look" and os.path.isdir(self.depot.machines)):
                with translated("lock the machines"):
                    self._locks = disk.Locks(self.depot)
                stack.callback(self._locks.close)
            if step == "send":
                self._sender = sending.Sender(self.params, self.depot, self._hypervisor, self.progress)
                stack.callback(self._sender.close)
            work = getattr(self, f"_{step}")
            # More threads than slots: what doesn't move now is looked at meanwhile.
            with concurrent.futures.ThreadPoolExecutor(max(1, min(len(entries), 16))) as pool:
                results = list(pool.map(lambda entry: self._one(work, entry), entries))
            answer: dict[str, object] = {"changed": any(result["changed"] for result in results), "machines": results}
            if self.params["unsettled"]:
                with translated("look for machines on their way"):
                    answer["unsettled"] = looking.unsettled(self.conn, self.depot)
        if self._facts:
            answer["host"] = dict(self._facts)
        return answer

    def _send(self, entry: Entry) -> Answer:
        return t.cast(sending.Sender, self._sender).send(entry)

    def _one(self, work: t.Callable[[Entry], Answer], entry: Entry) -> Answer:
        def checked() -> Answer:
            if not isinstance(entry, t.Mapping) or not (entry.get("uuid") or entry.get("name")):
                raise GridError("invalid_order", "the entry names no machine", remedy="Give uuid and name")
            uuid = check_uuid(entry["uuid"]) if entry.get("uuid") else None
            name = check_text("name", entry["name"]) if entry.get("name") else None
            if uuid is None and self.params["step"] != "look":
                raise GridError("invalid_uuid", "the machine has no uuid", remedy="Give it as step look returned it")
            limited = self._slots if self.params["step"] in ("send", "receive") else contextlib.nullcontext()
            with limited, self._held(uuid) as waited, translated():
                done = work(t.cast(Entry, {**entry, "uuid": uuid, "name": name}))
            return {**done, "waited": True} if waited else done

        identity = {"uuid": entry.get("uuid") if isinstance(entry, t.Mapping) else None}
        tried = _TRIED[self.params["step"]]
        done = attempt(label(entry), lambda: dict(checked()), kind="machine", tried=tried)
        return t.cast(Answer, {**identity, **done})

    @contextlib.contextmanager
    def _held(self, uuid: str | None) -> t.Iterator[bool]:
        """Hold the machine; tells whether another run had it, so that what was seen elsewhere before may not hold any
        more."""
        if not self._locks or not uuid:
            yield False
            return
        with contextlib.ExitStack() as stack:
            waited = False
            try:
                stack.enter_context(self._locks.of(uuid, 0))
            except GridError:
                waited = True
                stack.enter_context(self._locks.of(uuid, self.params["timeout"]))
            yield waited

    def _look(self, entry: Entry) -> Answer:
        view = looking.machine(self.conn, self.depot, entry["uuid"], entry["name"])
        holders = {mac: address for address, mac in (self._facts.get("leases") or {}).items()}
        if view.get("mac"):
            view["lease"] = holders.get(str(view["mac"]).lower())
        if view["state"] != "absent" and self.params["name"] and entry.get("source") == self.params["name"]:
            view["seed"] = looking.seed_text(self.depot.seed(view["uuid"]))
        memory = sleeping.files(self.depot, view["uuid"]) if view["state"] == "hibernated" else {}
        if memory and not view["moving"]:
            sleeping.check(self.conn, self.depot, view["uuid"])
        view["memory_file"] = sum(os.path.getsize(path) for path in memory.values())
        view["name"] = view["name"] or entry["name"]
        return view

    def _prepare(self, entry: Entry) -> Answer:
        """Check again with the target's own eyes, then make room for what moves live."""
        here: Host = {**self._facts, "name": str(self.params["name"]), "cpu": self._cpu(entry)}
        reserve = int(entry.get("reserve") or 0)
        errors = choice.check(entry["mode"], entry, here, reserve=reserve, layers_come=self.check_mode)
        if errors:
            raise errors[0]
        arriving.free(self.conn, self.depot, entry["uuid"], entry["name"])
        if not self.check_mode:
            arriving.discard(self.conn, self.depot, entry["uuid"], None)
            if entry["mode"] == choice.LIVE:
                arriving.prepare(self.depot, self.overlays, entry)
        return {"actions": ["prepare"], "changed": entry["mode"] == choice.LIVE}

    def _cpu(self, entry: Entry) -> dict[str, bool]:
        """Whether this host's processor has what the guest uses; only asked of those that run on it directly."""
        cpu = entry.get("cpu")
        if entry.get("virtualization") != "kvm" or entry["mode"] == choice.COLD or not cpu:
            return {}
        try:
            answer = self.conn.compareHypervisorCPU(None, None, entry.get("machine_type"), "kvm", cpu, 0)
        except libvirt.libvirtError:
            answer = libvirt.VIR_CPU_COMPARE_INCOMPATIBLE
        return {entry["uuid"]: answer in (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET)}

    def _receive(self, entry: Entry) -> Answer:
        """What came live is finished; what doesn't run is taken and defined here, and resumed."""
        uuid = entry["uuid"]
        if entry["action"] == copies.DISCARD:
            return self._settle(entry)
        if entry["action"] == "take":
            arriving.free(self.conn, self.depot, uuid, entry["name"])
            try:
                with translated("take the machine"):
                    return self._take(entry)
            except GridError as exc:
                # The source goes on with its own copy, if nothing has happened with the one here.
                arriving.undo(self.conn, self.depot, uuid, entry["attempt"])
                exc.details["copy"] = "source"
                raise
        return self._finish(entry)

    def _take(self, entry: Entry) -> Answer:
        """Get the machine's files, and make them the machine; it goes on if it slept only for its journey."""
        uuid = entry["uuid"]
        arriving.take(
            self.depot,
            entry,
            {**(self.params["source"] or {}), "port": entry["port"]},
            self.progress.about(entry["name"]),
            bandwidth=self.params["bandwidth"],
            stall=self.params["stall_timeout"],
        )
        sleeping.adopt(self.depot, uuid, int(entry["generation"]))
        return self._defined(entry, entry.get("attempt"))

    def _adopt(self, entry: Entry) -> Answer:
        """Make what came the machine."""
        came = looking.incoming(self.depot, entry["uuid"])
        sleeping.adopt(self.depot, entry["uuid"], came["generation"] if came else 0)
        return self._defined(entry, None)

    def _defined(self, entry: Entry, attempt: str | None) -> Answer:
        uuid = entry["uuid"]
        came = looking.incoming(self.depot, uuid)
        domain = arriving.define(self.conn, self.depot, uuid, attempt)
        # Until it goes on the note says that it is on its way: the next run finishes what is killed here.
        woken = sleeping.wake(self.conn, self.depot, domain, came["was"] if came else None)
        arriving.finish(self.depot, uuid, domain, bool(entry.get("autostart")))
        return self._arrived(domain, entry, ["take", "define", *(["resume"] if woken else [])])

    def _finish(self, entry: Entry) -> Answer:
        domain, dummy = observe.find_domain(self.conn, entry["uuid"], None)
        if domain is None or looking.arriving(domain):
            raise GridError("machine_unknown", "the machine didn't come", remedy="Run again")
        came = looking.incoming(self.depot, entry["uuid"])
        try:
            woken = sleeping.wake(self.conn, self.depot, domain, came["was"] if came else None)
        finally:
            # The copy here is the true one in any case; one that can't go on sleeps on, to be looked at as any other
            # that sleeps.
            arriving.finish(self.depot, entry["uuid"], domain, bool(entry.get("autostart")))
        answer = self._arrived(domain, entry, ["finish", *(["resume"] if woken else [])])
        return {**answer, "changed": came is not None or woken}

    def _arrived(self, domain: Domain, entry: Entry, actions: list[str]) -> Answer:
        facts = _facts(domain)
        with translated("keep the machine's address"):
            marking.keep_address(self.conn, facts["network"], facts["mac"], entry.get("lease"))
        return {"changed": True, "actions": actions, "facts": facts}

    def _settle(self, entry: Entry) -> Answer:
        """Carry out what was decided of the copy here."""
        action, uuid = entry["action"], entry["uuid"]
        if self.check_mode:
            return {"changed": True, "actions": [action]}
        if action == copies.DISCARD:
            return {"changed": arriving.discard(self.conn, self.depot, uuid, entry.get("attempt")), "actions": [action]}
        if action == copies.ADOPT:
            return self._adopt(entry)
        if action == copies.FINISH:
            return self._finish(entry)
        domain, dummy = observe.find_domain(self.conn, uuid, None)
        if action == copies.RELEASE:
            self._require_released(entry, domain)
            there = domain is not None or os.path.isdir(self.depot.machine(uuid))
            marking.release(self.depot, self.conn, uuid, domain)
            return {"changed": there, "actions": [action]}
        if domain is None:
            raise GridError("machine_unknown", "the machine isn't here any more", remedy="Run again")
        values = metadata.read(observe.configured(domain))
        moving = values["moving"] if values else None
        if moving and entry.get("attempt") not in (None, moving["attempt"]):
            raise GridError(
                "move_undone", "another run has begun to move the machine anew", remedy="Run again when that has ended"
            )
        restored = marking.restore(self.conn, self.depot, domain)
        woken = sleeping.wake(self.conn, self.depot, domain, sleeping.slept(self.depot, uuid))
        return {"changed": restored or woken, "actions": [action], "facts": _facts(domain)}

    def _require_released(self, entry: Entry, domain: Domain | None) -> None:
        """Only a marked copy is removed, and only by the move that marked it or a later one."""
        if domain is None:
            return
        view = looking.machine(self.conn, self.depot, entry["uuid"], None)
        moving = view.get("moving")
        if view["state"] == "running" or moving is None or moving["generation"] > int(entry.get("generation") or 0):
            raise GridError(
                "not_released",
                f"the copy here isn't one that a move has left: it is {view['state']}",
                remedy="Run virtuoso.grid.refresh, which tells which copy is the true one",
            )
