# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the controller joins two hosts, and how."""

from __future__ import annotations

import os

import pytest
from ansible_collections.virtuoso.grid.plugins.action.image_transfer import out_of_reach, through
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _ssh


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ({}, False),
        ({"images": [{"changed": True}]}, False),
        ({"images": [{"failure": {"code": "layer_missing"}}]}, False),
        ({"images": [{"changed": True}, {"failure": {"code": "source_unreachable"}}]}, True),
    ],
)
def test_only_a_source_out_of_reach_is_sshed(result, answer):
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
    argv = _ssh.command(Connection(), "-R", "127.0.0.1:0:/s")
    assert argv[:2] == [b"sshpass", b"ssh"] and argv[-1] == b"198.18.0.21"
    # ssh takes the first of two values
    assert argv.index(b"ControlMaster=no") < argv.index(b"ControlMaster=auto")
    assert argv[argv.index(b"-R") + 1] == b"127.0.0.1:0:/s" and b"ExitOnForwardFailure=yes" in argv


def test_what_is_no_ssh_connection_cannot_be_joined():
    with pytest.raises(GridError) as caught:
        _ssh.command(object(), "-L", "x")
    assert caught.value.code == "relay_impossible"


@pytest.mark.parametrize(
    ("hostvars", "why"),
    [({}, "no host of the inventory"), ({"home1": {"ansible_connection": "local"}}, "isn't reached by SSH")],
)
def test_a_source_that_ansible_does_not_reach_by_ssh(hostvars, why):
    with pytest.raises(GridError) as caught:
        _ssh.connection_to("home1", {"hostvars": hostvars}, None)
    assert caught.value.code == "relay_impossible" and why in caught.value.msg


class Shell:
    """A connection whose ssh runs its command here."""

    def __init__(self, directory, script='for last; do :; done; exec /bin/sh -c "$last"'):
        self.program = directory / "ssh"
        self.program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        self.program.chmod(0o700)

    def get_option(self, name):
        return {"host": "198.18.0.21", "ssh_executable": str(self.program)}[name]

    def _build_command(self, binary, subsystem, *words):
        return [word.encode() for word in (binary, *words)]


def test_a_socket_leads_to_the_target_until_the_block_ends(tmp_path):
    with _ssh.forwarded(Shell(tmp_path), Shell(tmp_path)) as way:
        path = way.path()
        assert path.startswith("/tmp/virtuoso-") and path.endswith(".sock") and not way.broken()
        # What the source's SSH server would make
        with open(path, "w", encoding="ascii"):
            pass
    assert not os.path.exists(path)


def test_where_ssh_ends_at_once_the_target_cannot_be_reached(tmp_path):
    bad = Shell(tmp_path, "echo Host key verification failed. >&2; exit 255")
    with _ssh.forwarded(bad, bad) as way, pytest.raises(GridError) as caught:
        way.path()
    assert way.broken()
    assert caught.value.code == "target_unreachable" and "Host key verification failed" in caught.value.msg


def test_a_port_of_the_destination_leads_to_the_source(tmp_path):
    said = 'echo "Allocated port 40001 for remote forward to /s:0" >&2; for last; do :; done; exec /bin/sh -c "$last"'
    (tmp_path / "far").mkdir()
    with _ssh.relayed(Shell(tmp_path), Shell(tmp_path / "far", said), 10809) as port:
        assert port == 40001
