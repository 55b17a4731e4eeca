# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``machine_migrate``: its progress on the terminal, and the ways between the two hosts."""

from __future__ import annotations

import contextlib
import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import once, steps
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _stations
from ansible_collections.virtuoso.grid.plugins.plugin_utils._at_once import NOT_HERE, at_once, looked_at
from ansible_collections.virtuoso.grid.plugins.plugin_utils._moving import Held, Trip, Ways
from ansible_collections.virtuoso.grid.plugins.plugin_utils._progress_action import ProgressAction
from ansible_collections.virtuoso.grid.plugins.plugin_utils._recorder import Recorder, marked
from ansible_collections.virtuoso.grid.plugins.plugin_utils._relay import connection_to, relayed
from ansible_collections.virtuoso.grid.plugins.plugin_utils._served import Served, close_all, no_collection
from ansible_collections.virtuoso.grid.plugins.plugin_utils._tunnel import forwarded


def cut_off(result: t.Mapping[str, t.Any]) -> set[str]:
    """The machines whose files didn't come because the target couldn't reach the source (pure)."""
    rows = result.get("machines") or []
    return {row["uuid"] for row in rows if (row.get("failure") or {}).get("code") == "source_unreachable"}


def joined(first: t.Mapping[str, t.Any], second: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A result in which the rows of a second try stand for those of the first (pure)."""
    if not isinstance(second.get("machines"), list):
        return dict(first)
    later = {row["uuid"]: row for row in second["machines"]}
    rows = [later.get(row["uuid"], row) for row in first["machines"]]
    merged = {key: value for key, value in first.items() if key not in ("msg", "failure", "failed", "exception")}
    merged.update(machines=rows, changed=any(row.get("changed") for row in rows))
    failed = [row for row in rows if row.get("failed")]
    if failed:
        merged.update(
            failed=True,
            msg=f"{len(failed)} of {len(rows)} failed: " + "; ".join(row["msg"] for row in failed),
            failure={"code": "some_failed", "codes": sorted({row["failure"]["code"] for row in failed})},
        )
    return merged


def no_way_round(first: t.Mapping[str, t.Any], error: GridError) -> dict[str, t.Any]:
    """A result whose rows tell that the way through the controller was tried as well (pure)."""
    cut = cut_off(first)
    said = f"; nor through the controller: {error.msg}"
    return {
        **first,
        "machines": [{**row, "msg": row["msg"] + said} if row["uuid"] in cut else row for row in first["machines"]],
    }


def through_controller(
    source: t.Any,
    target: t.Any,
    run: t.Callable[[t.Mapping[str, t.Any]], dict[str, t.Any]],
    arguments: t.Mapping[str, t.Any],
    first: dict[str, t.Any],
) -> dict[str, t.Any]:
    """The step ``receive`` once more for those whose source can't be reached: a port of the target's own leads there.

    :param source: a connection, as is ``target``.
    :param run: runs the module on the target.
    :param first: what the step returned without that.
    """
    again = [entry for entry in arguments["machines"] if entry["uuid"] in cut_off(first)]
    way = {**arguments["source"], "host": "127.0.0.1", "key_name": arguments["source"]["host"]}
    try:
        with contextlib.ExitStack() as stack:
            entries = [
                {**entry, "port": stack.enter_context(relayed(source, target, int(entry["port"])))} for entry in again
            ]
            return joined(first, run({**arguments, "machines": entries, "source": way}))
    except GridError as exc:
        return no_way_round(first, exc)


def by_step(arguments: t.Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """What the module is given in each step of a journey, of what the step ``move`` was given (pure)."""
    source, target = arguments.get("source"), arguments.get("target")
    if not all(
        isinstance(end, dict) and end.get("name") and end.get("address") and end.get("path") for end in (source, target)
    ):
        raise GridError(
            "invalid_options", "the step move needs source and target", remedy="Give both with name, address and path"
        )
    common = {key: arguments[key] for key in ("uri", "timeout", "ports") if key in arguments}
    limits = {key: arguments[key] for key in ("parallel", "bandwidth", "stall_timeout") if key in arguments}
    live = {key: arguments[key] for key in ("downtime", "postcopy", "postcopy_after") if key in arguments}
    here = {**common, "name": source["name"], "path": source["path"]}
    there = {**common, "name": target["name"], "path": target["path"]}
    return {
        "prepare": {**there, "step": "prepare"},
        "send": {**here, **limits, **live, "step": "send", "target": target},
        "receive": {
            **there,
            **limits,
            "step": "receive",
            "source": {"name": source["name"], "host": source["address"]},
        },
        "settle": {**here, "step": "settle"},
    }


class ActionModule(ProgressAction):
    """The module with its progress, and with a socket of the target's libvirt where machines leave live."""

    MODULE = "virtuoso.grid.machine_migrate"

    def _watched(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        step, machines = arguments.get("step"), arguments.get("machines") or []
        if step in ("move", "all"):
            try:
                return self._move(arguments, task_vars) if step == "move" else self._all(arguments, task_vars)
            except GridError as exc:
                return exc.result()
        if step == "send" and not self._task.check_mode and any(entry.get("mode") == "live" for entry in machines):
            return self._send(arguments, task_vars)
        result = super()._watched(arguments, task_vars)
        if step == "receive" and not self._task.check_mode and cut_off(result):
            return self._again(arguments, task_vars, super()._watched, result)
        return result

    def _move(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """All steps, on both hosts; the machines as they are then, with ``status`` and ``row``."""
        given = by_step(arguments)
        source, target = (arguments[end]["name"] for end in ("source", "target"))
        ways = {source: self._connection, target: self._way_to(target, task_vars)}
        stations = {
            source: _stations.Station(self, source, ways[source], task_vars),
            target: _stations.Station(self, target, ways[target], _stations.variables(task_vars, target)),
        }
        journey = {"source": source, "target": target, "machines": arguments["machines"]}
        with contextlib.ExitStack() as stack:
            for station in stations.values():
                stack.callback(station.close)
            machines = self._journey(
                journey,
                given,
                stations,
                ways,
                lambda: Held(forwarded(ways[target], ways[source])),
                self._recorder(arguments),
            )
        return {"changed": any((machine.get("row") or {}).get("changed") for machine in machines), "machines": machines}

    def _all(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """All of it, for all hosts and machines, with one module started on each host."""
        hosts = {host["name"]: host for host in arguments["hosts"]}
        common = {key: arguments[key] for key in ("uri", "timeout") if key in arguments}
        ways = {name: self._way_to(name, task_vars) for name in hosts}
        sockets = Ways(lambda source, target: forwarded(ways[target], ways[source]))
        stations: dict[str, Served] = {}
        with contextlib.ExitStack() as stack:
            stack.callback(sockets.close)
            stack.callback(lambda: close_all(stations.values()))
            with no_collection():
                for name, way in ways.items():
                    stations[name] = Served(
                        _stations.Station(self, name, way, _stations.variables(task_vars, name)), common
                    )
                for served in stations.values():
                    served.listen()
                if not all(served.serves for served in stations.values()):
                    return NOT_HERE
                sockets.expect(
                    pair
                    for pair in once.foreseen(arguments["machines"], arguments["plan"]["mode"])
                    if set(pair) <= set(ways)
                )
                looked = looked_at(stations, hosts, arguments["machines"], common)
            # Not before: it would load its library while the modules are packed, in the same process.
            recorder = self._recorder(arguments)

            def journey(each: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
                ends = {
                    "source": dict(hosts[each["source"]]),
                    "target": {**hosts[each["target"]], "postcopy": each["postcopy"]},
                }
                given = by_step({**arguments, **ends, "parallel": each["parallel"]})
                way = functools.partial(sockets.take, each["source"], each["target"])
                return self._journey(each, given, stations, ways, way, recorder)

            return at_once(arguments["machines"], hosts, looked, arguments["plan"], journey)

    def _way_to(self, name: str, task_vars: dict[str, t.Any]) -> t.Any:
        """A connection to a host, with the task's privileges."""
        way = connection_to(name, task_vars, self._play_context)
        _stations.become(self, way, _stations.known(task_vars, name))
        return way

    def _recorder(self, arguments: t.Mapping[str, t.Any]) -> Recorder | None:
        record = arguments.get("record") or {}
        return (
            Recorder(record, self._loader.get_basedir()) if record.get("store") and not self._task.check_mode else None
        )

    def _journey(
        self,
        journey: t.Mapping[str, t.Any],
        given: t.Mapping[str, t.Mapping[str, t.Any]],
        stations: t.Mapping[str, t.Any],
        ways: t.Mapping[str, t.Any],
        way: t.Callable[[], Held],
        recorder: Recorder | None,
    ) -> list[dict[str, t.Any]]:
        """Make one; its machines as they are then.
        :param stations: by host, as are ``ways``, the connections there.
        :param way: to the target's libvirt."""
        source, target = journey["source"], journey["target"]

        def again(taken: t.Mapping[str, t.Any], first: dict[str, t.Any]) -> dict[str, t.Any]:
            return (
                through_controller(ways[source], ways[target], stations[target].run, taken, first)
                if cut_off(first)
                else first
            )

        order = steps.ORDER[:1] if self._task.check_mode else steps.ORDER
        ends = {"source": stations[source], "target": stations[target]}
        trip = Trip(journey, ends, given, way, again, order)
        machines = [
            {key: value for key, value in machine.items() if key != "seed"} for machine in trip.run()["machines"]
        ]
        if recorder is not None:
            machines = marked(
                machines, recorder.record([machine["seen"] for machine in machines if machine.get("seen")])
            )
        return machines

    def _again(
        self,
        arguments: dict[str, t.Any],
        task_vars: dict[str, t.Any],
        run: t.Callable[..., dict[str, t.Any]],
        first: dict[str, t.Any],
    ) -> dict[str, t.Any]:
        try:
            there = connection_to(str((arguments.get("source") or {}).get("name")), task_vars, self._play_context)
        except GridError as exc:
            return no_way_round(first, exc)
        return through_controller(there, self._connection, lambda given: run(dict(given), task_vars), arguments, first)

    def _send(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        try:
            there = connection_to(str((arguments.get("target") or {}).get("name")), task_vars, self._play_context)
            with forwarded(there, self._connection) as socket:
                return super()._watched({**arguments, "socket": socket}, task_vars)
        except GridError as exc:
            return exc.result()
