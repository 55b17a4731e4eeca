# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the controller joins two hosts, and how."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.action.image_transfer import out_of_reach, through
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _relay


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ({}, False),
        ({"images": [{"changed": True}]}, False),
        ({"images": [{"failure": {"code": "layer_missing"}}]}, False),
        ({"images": [{"changed": True}, {"failure": {"code": "source_unreachable"}}]}, True),
    ],
)
def test_only_a_source_out_of_reach_is_relayed(result, answer):
    assert out_of_reach(result) is answer


@pytest.mark.parametrize(
    ("source", "name", "key_name"),
    [
        ({"host": "198.18.0.11"}, "198.18.0.11", "198.18.0.11"),
        ({"host": "198.18.0.11", "name": "home1", "port": 2222}, "home1", "[198.18.0.11]:2222"),
        ({"host": "198.18.0.11", "key_name": "home"}, "198.18.0.11", "home"),
    ],
)
def test_the_sources_key_is_known_by_its_own_address(source, name, key_name):
    reached = through(source, 40001)
    assert (reached["host"], reached["port"]) == ("127.0.0.1", 40001)
    assert (reached["name"], reached["key_name"]) == (name, key_name)


class Connection:
    """What Ansible's ssh connection tells of itself."""

    def get_option(self, name):
        return {"host": "198.18.0.21", "ssh_executable": "ssh"}[name]

    def _build_command(self, binary, subsystem, *words):
        return [b"sshpass", binary.encode(), b"-o", b"ControlMaster=auto", *(word.encode() for word in words)]


def test_a_connection_of_its_own_that_ends_with_the_work():
    argv = _relay.command(Connection(), "-R", "127.0.0.1:0:/s")
    assert argv[:2] == [b"sshpass", b"ssh"] and argv[-1] == b"198.18.0.21"
    # ssh takes the first of two values
    assert argv.index(b"ControlMaster=no") < argv.index(b"ControlMaster=auto")
    assert argv[argv.index(b"-R") + 1] == b"127.0.0.1:0:/s" and b"ExitOnForwardFailure=yes" in argv


def test_what_is_no_ssh_connection_cannot_be_joined():
    with pytest.raises(GridError) as caught:
        _relay.command(object(), "-L", "x")
    assert caught.value.code == "relay_impossible"


@pytest.mark.parametrize(
    ("hostvars", "why"),
    [({}, "no host of the inventory"), ({"home1": {"ansible_connection": "local"}}, "isn't reached by SSH")],
)
def test_a_source_that_ansible_does_not_reach_by_ssh(hostvars, why):
    with pytest.raises(GridError) as caught:
        _relay.connection_to("home1", {"hostvars": hostvars}, None)
    assert caught.value.code == "relay_impossible" and why in caught.value.msg
