# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of host_check: each way of not getting there is a result."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleUndefinedVariable
from ansible_collections.virtuoso.grid.plugins.action import host_check

OK = {"rc": 0, "stdout": "ops\n", "stderr": ""}
ROOT = {"rc": 0, "stdout": "root\n", "stderr": ""}
CLOCK = {"clock": {"begin": 100.0, "end": 106.0}}
VARIABLES = {
    "inventory_hostname": "p1",
    "ansible_play_hosts_all": ["p1", "p2"],
    "groups": {"providers": ["p1", "p2"]},
    "hostvars": {
        "p1": {"inventory_hostname": "p1"},
        "p2": {"inventory_hostname": "p2", "ansible_host": "192.0.2.2", "ansible_port": "2222"},
    },
}


@pytest.fixture
def action(monkeypatch):
    def make(*answers, module=None, **arguments):
        script = list(answers)
        asked = []

        def say(answer):
            if isinstance(answer, Exception):
                raise answer
            return answer

        made = object.__new__(host_check.ActionModule)
        made._task = SimpleNamespace(args=arguments)
        made._connection = SimpleNamespace(become=SimpleNamespace(name="sudo"))
        monkeypatch.setattr(host_check.ActionBase, "run", lambda *dummy: {})
        made._low_level_execute_command = lambda *dummy, **more: say(script.pop(0))
        made.get_become_option = lambda name: "secret"
        made._execute_module = lambda **more: asked.append(more) or say(module)
        result = made.run(task_vars=VARIABLES)
        assert script == []
        assert "secret" not in str(result)
        return result, asked

    return make


def test_a_host_that_answers(action):
    result, asked = action(OK, ROOT, module={"facts": CLOCK}, path="/srv")
    host = result["host"]
    assert result["changed"] is False
    assert (host["way"]["user"], host["way"]["become"], host["way"]["become_user"]) == ("ops", "sudo", "root")
    assert (host["way"]["password"], host["way"]["stage"], host["facts"]) == (True, "", CLOCK)
    assert host["peers"] == [{"name": "p2", "address": "192.0.2.2", "ports": [2222, 10808, 10872, 49215]}]
    arguments = asked[0]["module_args"]
    assert (arguments["libvirt"], arguments["path"], arguments["peers"]) == (True, "/srv", host["peers"])


@pytest.mark.parametrize(
    ("answers", "module", "stage", "reached"),
    [
        ([AnsibleConnectionFailure("timed out")], None, "connect", False),
        ([{"rc": 1, "stdout": "", "stderr": "account expired"}], None, "connect", False),
        ([OK, AnsibleError("Missing sudo password")], None, "become", True),
        ([OK, {"rc": 1, "stdout": "", "stderr": "not in sudoers"}], None, "become", True),
        ([OK, ROOT], AnsibleConnectionFailure("cut"), "facts", True),
        ([OK, ROOT], {"failed": True, "msg": "boom"}, "facts", True),
        ([OK, ROOT], {"failed": True, "rc": 127, "module_stderr": "python3: not found"}, "python", True),
        ([OK, ROOT], {"failed": True, "msg": "The module interpreter '/x' was not found."}, "python", True),
    ],
)
def test_what_fails_is_a_result(action, answers, module, stage, reached):
    result, dummy = action(*answers, module=module)
    way = result["host"]["way"]
    assert (way["stage"], way["reached"], bool(way["error"])) == (stage, reached, True)
    assert result["host"]["facts"] is None
    assert "failed" not in result


@pytest.mark.parametrize(
    ("offset", "low", "high"),
    # Asked at 1000, answered at 1008; the host measured 6 s of them.
    [(0, -1, 1), (50, 49, 51), (-50, -51, -49)],
)
def test_a_clocks_offset_lies_between_the_times_around_it(offset, low, high):
    clock = {"begin": 1001.0 + offset, "end": 1007.0 + offset}
    assert host_check.clocks(1000.0, 1008.0, clock) == (low, high)


def test_a_variable_that_cannot_be_told_is_left_out():
    class Broken(dict):
        def __getitem__(self, name):
            raise AnsibleUndefinedVariable("no such variable")

    nodes = host_check.nodes(["p2"], {"p2": Broken(a=1)}, {"homes": ["p2"]}, "")
    assert nodes == [host_check.Node("p2", "p2", 22, frozenset({"home"}))]
