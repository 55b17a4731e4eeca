# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``machine_migrate``: the step ``move``, which spans two hosts, and progress."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import steps
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import Journey, Registered, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.results import by_host, key
from ansible_collections.virtuoso.grid.plugins.module_utils._play.hosts import Way, store_host
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _libvirt_way, _ssh
from ansible_collections.virtuoso.grid.plugins.plugin_utils._progress_action import Arguments, ProgressAction
from ansible_collections.virtuoso.grid.plugins.plugin_utils._ssh import Variables
from ansible_collections.virtuoso.grid.plugins.plugin_utils._way import way_to

_ALL_STEPS = ("uri", "timeout", "ports")
_LONG_STEPS = ("parallel", "bandwidth", "stall_timeout")
_LIVE = ("downtime", "postcopy", "postcopy_after")


class End(t.TypedDict):
    """A host at one end of a journey."""

    name: str
    address: str
    """as the other end reaches it"""
    path: str
    """of its depot"""
    site: str
    postcopy: bool


def end_of(way: Way, given: Arguments, variables: Variables) -> End:
    """An end of a journey (pure).

    :param way: to the host.
    :param given: the task's arguments, whose ``path`` is that of hosts that have no depot of their own.
    :param variables: the host's.
    """
    return {
        "name": way["name"],
        "address": way["address"],
        "path": str(variables.get("virtuoso_depot") or given.get("path") or way["depot"]),
        "site": way["site"],
        "postcopy": bool((given.get("target") or {}).get("postcopy")),
    }


def arguments_by_step(given: Arguments, source: End, target: End) -> dict[str, Arguments]:
    """What the module is given in each step of a journey, beside the machines (pure)."""
    common = {name: given[name] for name in _ALL_STEPS if name in given}
    limits = {name: given[name] for name in _LONG_STEPS if name in given}
    live = {name: given[name] for name in _LIVE if name in given}
    here = {**common, "name": source["name"], "path": source["path"]}
    there = {**common, "name": target["name"], "path": target["path"]}
    origin = {"name": source["name"], "host": source["address"]}
    return {
        "prepare": {**there, "step": "prepare"},
        "send": {**here, **limits, **live, "step": "send", "target": target},
        "receive": {**there, **limits, "step": "receive", "source": origin},
        "settle": {**here, "step": "settle"},
    }


def failed_by(result: Result, code: str) -> set[str]:
    """The uuids of the machines that failed for this reason (pure)."""
    rows = result.get("machines") or []
    return {row["uuid"] for row in rows if (row.get("failure") or {}).get("code") == code}


def merged(first: Result, second: Result) -> Result:
    """A result in which the rows of a second try stand for those of the first (pure)."""
    later = {row["uuid"]: row for row in second.get("machines") or ()}
    return {**first, "machines": [later.get(row["uuid"], row) for row in first["machines"]]}


def no_way_round(first: Result, error: GridError) -> Result:
    """A result whose rows tell that the way through the controller was tried as well (pure)."""
    cut, said = failed_by(first, "source_unreachable"), f"; nor through the controller: {error.msg}"
    rows = first["machines"]
    return {**first, "machines": [{**row, "msg": row["msg"] + said} if row["uuid"] in cut else row for row in rows]}


class ActionModule(ProgressAction):
    """The module with its progress; and the step ``move``, which makes the steps on both hosts, one after the other."""

    MODULE = "virtuoso.grid.machine_migrate"

    def _watched(self, arguments: Arguments, task_vars: Arguments) -> Arguments:
        if arguments.get("step") == "move":
            try:
                return self._move(arguments, task_vars)
            except GridError as exc:
                return exc.result()
        result = super()._watched(arguments, task_vars)
        if arguments.get("step") == "look":
            host = str(self._task.delegate_to or task_vars["inventory_hostname"])
            result["provider"] = store_host(way_to(_ssh.host_variables(host, task_vars)), "provider")
        return result

    def _move(self, arguments: Arguments, task_vars: Variables) -> Arguments:
        """Make the steps of a journey; its machines as they are then."""
        names = [str((arguments.get(end) or {}).get("name") or "") for end in ("source", "target")]
        if not all(names):
            raise GridError("invalid_options", "the step move needs source and target", remedy="Give both with name")
        known = [_ssh.host_variables(name, task_vars) for name in names]
        source, target = (end_of(way_to(variables), arguments, variables) for variables in known)
        journey: Journey = {
            "source": source["name"],
            "target": target["name"],
            "machines": list(arguments["machines"]),
        }
        transfers: list[Registered] = arguments.get("images") or []
        journey = steps.without_image(journey, by_host(transfers).get(key(journey)))
        given = arguments_by_step(arguments, source, target)
        last = "prepare" if self._task.check_mode else str(arguments.get("through") or steps.ORDER[-1])
        with contextlib.ExitStack() as stack:
            there = self._on(target["name"], task_vars)
            stack.callback(there.cleanup)
            # To join the hosts takes as long as to prepare the target, so it is begun before that.
            live = last != "prepare" and steps.leaves_live(journey)
            way = stack.enter_context(_libvirt_way.forwarded(there.connection, self.connection)) if live else None
            for step in steps.ORDER[: steps.ORDER.index(last) + 1]:
                entries = steps.entries(journey, step)
                if entries:
                    at = journey["source"] if steps.END[step] == "source" else journey["target"]
                    Display().v(f"{at}: {step}: {', '.join(entry['name'] for entry in entries)}")
                    result = self._step(there, way, {**given[step], "machines": entries}, task_vars)
                    journey = steps.advance(journey, step, result)
        if self._task.check_mode:
            journey = steps.foretold(journey)
        machines = [{name: value for name, value in each.items() if name != "seed"} for each in journey["machines"]]
        changed = any((machine.get("row") or {}).get("changed") for machine in journey["machines"])
        return {"changed": changed, "machines": machines}

    def _on(self, name: str, task_vars: Variables) -> ActionModule:
        """This action on another host, with the task's privileges."""
        task = self._task.copy()
        task.delegate_to = name
        connection = _ssh.privileged_connection_to(name, task_vars, task, self._play_context)
        action = self._shared_loader_obj.action_loader.get(
            self.MODULE,
            task=task,
            connection=connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return t.cast(ActionModule, action)

    def _step(
        self, there: ActionModule, way: _libvirt_way.Forwarding | None, arguments: Arguments, task_vars: Variables
    ) -> Result:
        """Make one step.

        :param there: this action on the target.
        :param way: to the target's libvirt.
        """
        step = arguments["step"]
        if steps.END[step] == "target":
            result = there.run_step(arguments, task_vars)
            return self._through_controller(there, arguments, task_vars, result) if step == "receive" else result
        if way is None or step != "send":
            return self.run_step(arguments, task_vars)
        try:
            result = self.run_step({**arguments, "socket": way.path()}, task_vars)
            # A broken connection is made again, as Ansible does with its own; the step finds out what it has done.
            left = failed_by(result, "target_unreachable") if way.broken() else set()
            if not left:
                return result
            with _libvirt_way.forwarded(there.connection, self.connection) as again:
                entries = [entry for entry in arguments["machines"] if entry["uuid"] in left]
                second = self.run_step({**arguments, "machines": entries, "socket": again.path()}, task_vars)
                return merged(result, second)
        except GridError as exc:
            return t.cast(Result, exc.result())

    @property
    def connection(self) -> ConnectionBase:
        """The connection to this action's host."""
        return self._connection

    def run_step(self, arguments: Arguments, task_vars: Variables) -> Result:
        """Run the module on this action's host; whatever keeps it from running is its result."""
        try:
            name = self._task.delegate_to
            told = _ssh.delegated(task_vars, name) if name else dict(task_vars)
            return t.cast(Result, super()._watched(arguments, told))
        except AnsibleConnectionFailure as exc:
            return {"unreachable": True, "msg": str(exc)}
        except (AnsibleError, OSError) as exc:
            return {"failed": True, "msg": f"the step failed: {exc}"}

    def _through_controller(
        self, there: ActionModule, arguments: Arguments, task_vars: Variables, first: Result
    ) -> Result:
        """The step ``receive`` once more for machines whose source can't be reached: a port of the target's own leads
        there.

        :param first: what the step returned without that.
        """
        cut = failed_by(first, "source_unreachable")
        again = [entry for entry in arguments["machines"] if entry["uuid"] in cut]
        if not again:
            return first
        source = arguments["source"]
        way = {**source, "host": "127.0.0.1", "key_name": source["host"]}
        try:
            with contextlib.ExitStack() as stack:
                entries = [
                    {
                        **entry,
                        "port": stack.enter_context(
                            _ssh.relayed(self.connection, there.connection, int(entry["port"]))
                        ),
                    }
                    for entry in again
                ]
                second = there.run_step({**arguments, "machines": entries, "source": way}, task_vars)
                return merged(first, second)
        except GridError as exc:
            return no_way_round(first, exc)
