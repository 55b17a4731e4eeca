# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step ``move``: which steps are made, in which order, on which host."""

from __future__ import annotations

import contextlib
import types

import pytest
from ansible_collections.virtuoso.grid.plugins.action import machine_migrate
from ansible_collections.virtuoso.grid.plugins.action.machine_migrate import (
    arguments_by_step,
    end_of,
    merged,
    no_way_round,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import steps
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _libvirt_way
from ansible_collections.virtuoso.grid.plugins.plugin_utils._way import way_to

FACTS = {"name": "a", "uuid": "a", "state": "running"}
BAD = {"failed": True, "msg": "no", "failure": {"code": "move_failed", "copy": "source"}}
HOSTS = {"p1": {"inventory_hostname": "p1", "ansible_host": "198.18.0.21"}, "p2": {"inventory_hostname": "p2"}}


class Action(machine_migrate.ActionModule):
    """The action on a host that answers as it is told."""

    def __init__(self, name, log, answers, check_mode=False):
        self.name, self.log, self.answers = name, log, answers
        self._task = types.SimpleNamespace(check_mode=check_mode, delegate_to=name)
        self._connection = name

    def run_step(self, arguments, task_vars):
        step = arguments["step"]
        self.log.append(f"{step} {self.name} {arguments.get('socket', '-')}")
        if step in self.answers and "machines" in self.answers[step]:
            return self.answers[step]
        return {"machines": [{"uuid": each["uuid"], **self.answers.get(step, {})} for each in arguments["machines"]]}

    def cleanup(self, force=False):
        self.log.append(f"cleanup {self.name}")


def machine(mode="live", **more):
    base = {"name": "a", "uuid": "a", "source": "p1", "target": "p2", "mode": mode, "status": "planned", "missing": []}
    image = {"name": "tiny@1", "digest": "sha256:a"}
    was = "stopped" if mode == "cold" else "running"
    return {**base, "was": was, "image": image, "plan": "", "seed": "s", **more}


@contextlib.contextmanager
def straight(there, here):
    assert (there, here) == ("p2", "p1")
    yield _libvirt_way.Forwarding(lambda: "/socket", lambda: False)


def move(monkeypatch, answers, mode="live", way=straight, check_mode=False, **arguments):
    log = []
    source, target = (Action(name, log, answers, check_mode) for name in ("p1", "p2"))
    monkeypatch.setattr(machine_migrate._libvirt_way, "forwarded", way)
    monkeypatch.setattr(source, "_on", lambda name, task_vars: target)
    machines = [machine(mode, **arguments.pop("machine", {}))]
    given = {"step": "move", "source": {"name": "p1"}, "target": {"name": "p2"}, "machines": machines, **arguments}
    result = source._watched(given, {"hostvars": HOSTS})
    return (result["machines"][0] if "machines" in result else result), log


def test_a_live_move(monkeypatch):
    after, log = move(monkeypatch, {"send": {"stats": {"downtime": 7}}, "receive": {"facts": FACTS}})
    assert log == ["prepare p2 -", "send p1 /socket", "receive p2 -", "cleanup p2"]
    assert after["status"] == "received" and after["row"]["stats"] == {"downtime": 7} and "seed" not in after


def test_files_and_then_the_source_lets_go(monkeypatch):
    answers = {"send": {"files": {}, "port": 5}, "receive": {"facts": FACTS}}
    after, log = move(monkeypatch, answers, "hibernated")
    assert log[1:] == ["send p1 -", "receive p2 -", "settle p1 -", "cleanup p2"] and after["status"] == "done"


def test_what_the_target_refuses_goes_nowhere(monkeypatch):
    after, log = move(monkeypatch, {"prepare": BAD})
    assert log == ["prepare p2 -", "cleanup p2"] and after["row"]["failed"]


def test_what_did_not_leave_is_thrown_away_at_the_target(monkeypatch):
    after, log = move(monkeypatch, {"send": BAD})
    assert log[1:] == ["send p1 /socket", "receive p2 -", "cleanup p2"]
    assert after["row"]["failure"]["code"] == "move_failed"


def test_without_a_way_nothing_is_sent(monkeypatch):
    @contextlib.contextmanager
    def broken(there, here):
        def ready():
            raise GridError("target_unreachable", "no way")

        yield _libvirt_way.Forwarding(ready, lambda: False)

    after, log = move(monkeypatch, {}, way=broken)
    assert log == ["prepare p2 -", "cleanup p2"]
    assert after["row"]["failure"]["code"] == "target_unreachable" and "no way" in after["row"]["msg"]


@pytest.mark.parametrize("broken", [True, False])
def test_a_way_that_broke_is_made_again(monkeypatch, broken):
    made = []

    @contextlib.contextmanager
    def way(there, here):
        made.append(f"/socket{len(made)}")
        path = made[-1]
        yield _libvirt_way.Forwarding(lambda: path, lambda: broken)

    class First(Action):
        def run_step(self, arguments, task_vars):
            if arguments.get("socket") == "/socket0":
                failure = {"code": "target_unreachable"}
                return {"machines": [{"uuid": "a", "failed": True, "msg": "gone", "failure": failure}]}
            return super().run_step(arguments, task_vars)

    log = []
    source, target = (First(name, log, {"receive": {"facts": FACTS}}) for name in ("p1", "p2"))
    monkeypatch.setattr(machine_migrate._libvirt_way, "forwarded", way)
    monkeypatch.setattr(source, "_on", lambda name, task_vars: target)
    given = {"step": "move", "source": {"name": "p1"}, "target": {"name": "p2"}, "machines": [machine()]}
    (after,) = source._watched(given, {"hostvars": HOSTS})["machines"]
    assert after["status"] == ("received" if broken else "failed")
    assert ("send p1 /socket1" in log) is broken


def test_it_ends_with_the_step_that_was_asked_for_and_goes_on_from_there(monkeypatch):
    after, log = move(monkeypatch, {}, through="prepare")
    assert log == ["prepare p2 -", "cleanup p2"] and after["status"] == "prepared" and "row" not in after
    dummy, log = move(monkeypatch, {"receive": {"facts": FACTS}}, machine={"status": "prepared"})
    assert log[0] == "send p1 /socket"


def test_check_mode_only_asks_the_target(monkeypatch):
    after, log = move(monkeypatch, {}, check_mode=True, way=lambda *dummy: pytest.fail("no way is made"))
    assert log == ["prepare p2 -", "cleanup p2"] and after["row"]["actions"] == ["migrate live"]


def test_a_machine_whose_image_did_not_come_stays(monkeypatch):
    failed = {"images": [{"name": "tiny@1", "failed": True, "msg": "full", "failure": {"code": "disk_full"}}]}
    brought = [{"results": [{"migrate__item": {"source": "p1", "target": "p2"}, **failed}]}]
    after, log = move(monkeypatch, {}, images=brought, machine={"missing": ["sha256:a"]})
    assert log == ["cleanup p2"] and after["row"]["failure"]["code"] == "disk_full"


def test_files_that_the_target_cannot_fetch_come_through_the_controller(monkeypatch):
    cut = {"machines": [{"uuid": "a", "failed": True, "msg": "p2: cut", "failure": {"code": "source_unreachable"}}]}

    @contextlib.contextmanager
    def relayed(source, destination, port):
        assert (source, destination, port) == ("p1", "p2", 5)
        yield 40000

    class Second(Action):
        def run_step(self, arguments, task_vars):
            if arguments["step"] == "receive" and arguments["source"]["host"] == "127.0.0.1":
                assert arguments["machines"][0]["port"] == 40000 and arguments["source"]["key_name"] == "198.18.0.21"
                return {"machines": [{"uuid": "a", "facts": FACTS}]}
            return super().run_step(arguments, task_vars)

    monkeypatch.setattr(machine_migrate._ssh, "relayed", relayed)
    log = []
    source, target = (Second(name, log, {"send": {"port": 5}, "receive": cut}) for name in ("p1", "p2"))
    monkeypatch.setattr(source, "_on", lambda name, task_vars: target)
    given = {"step": "move", "source": {"name": "p1"}, "target": {"name": "p2"}, "machines": [machine("cold")]}
    (after,) = source._watched(given, {"hostvars": HOSTS})["machines"]
    assert after["status"] == "done" and log[-2:] == ["settle p1 -", "cleanup p2"]


def test_both_ends_are_named(monkeypatch):
    answer, log = move(monkeypatch, {}, target={})
    assert answer["failure"]["code"] == "invalid_options" and log == []


def test_each_step_is_told_of_its_own_end():
    given = {"path": "/depot", "parallel": 2, "downtime": 50, "uri": "u", "target": {"postcopy": True}}
    one = {**HOSTS["p1"], "virtuoso_depot": "/a"}
    two = {**HOSTS["p2"], "virtuoso_address": "192.0.2.2", "virtuoso_site": "north"}
    source, target = (end_of(way_to(variables), given, variables) for variables in (one, two))
    assert source == {"name": "p1", "address": "198.18.0.21", "path": "/a", "site": "p1", "postcopy": True}
    told = arguments_by_step(given, source, target)
    assert [(step, told[step]["name"], told[step]["path"]) for step in steps.ORDER] == [
        ("prepare", "p2", "/depot"),
        ("send", "p1", "/a"),
        ("receive", "p2", "/depot"),
        ("settle", "p1", "/a"),
    ]
    assert told["send"]["target"]["address"] == "192.0.2.2" and told["send"]["target"]["site"] == "north"
    assert told["send"]["downtime"] == 50 and "downtime" not in told["receive"] and told["receive"]["parallel"] == 2
    assert told["receive"]["source"] == {"name": "p1", "host": "198.18.0.21"}


def test_it_is_told_that_the_way_through_the_controller_failed_too():
    cut = {"uuid": "a", "failed": True, "msg": "p2: cut", "failure": {"code": "source_unreachable"}}
    first = {"machines": [cut, {"uuid": "b", "msg": "other"}]}
    after = no_way_round(first, GridError("relay_impossible", "no keys"))
    assert [row["msg"] for row in after["machines"]] == ["p2: cut; nor through the controller: no keys", "other"]
    assert merged(first, {"unreachable": True})["machines"] == first["machines"]
