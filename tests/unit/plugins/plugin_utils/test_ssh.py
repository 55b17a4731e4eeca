# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the controller joins two hosts, and how."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from ansible.plugins.loader import become_loader
from ansible_collections.virtuoso.grid.plugins.action.image_transfer import out_of_reach, through
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _libvirt_way, _ssh


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
        self.words = words
        return [word.encode() for word in (binary, *words)]

    @property
    def socket(self):
        """The controller's end of what is forwarded to this host."""
        return self.words[self.words.index("-R") + 1].partition(":")[2]


@pytest.fixture(name="echo")
def _echo(monkeypatch):
    """What stands for libvirt: it says again what it is told."""
    monkeypatch.setattr(_libvirt_way, "HELPER", "cat")


def become(directory, script, password="right"):
    """Ansible's become plugin sudo, with a program in its place that asks as it does."""
    program = directory / "sudo"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o700)
    plugin = become_loader.get("sudo")
    plugin.set_options(direct={"become_exe": str(program), "become_pass": password, "become_user": "root"})
    return plugin


SUDO = r"""
while [ "$1" != -c ]; do [ "$1" = -p ] && prompt=$2; shift; done
for try in 1 2; do
    printf %s "$prompt" >&2
    read -r word
    [ "$word" = right ] && exec /bin/sh -c "$2"
    echo "Sorry, try again." >&2
done
exit 1
"""


def exchange(path, word):
    """What comes back of what is said at the socket."""

    def speak():
        client.sendall(word)
        client.shutdown(socket.SHUT_WR)

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        speaker = threading.Thread(target=speak)
        speaker.start()
        heard = b"".join(iter(lambda: client.recv(65536), b""))
        speaker.join()
        return heard


def talk(path, *words):
    """What comes back of what clients say, one after another."""
    return [exchange(path, word) for word in words]


def test_a_socket_leads_to_the_target_until_the_block_ends(tmp_path, echo):
    here = Shell(tmp_path)
    with _libvirt_way.forwarded(Shell(tmp_path), here) as way:
        path = way.path()
        assert path.startswith("/tmp/virtuoso-") and path.endswith(".sock") and not way.broken()
        binary = bytes(range(256)) * 5000
        assert talk(here.socket, binary, b"again") == [binary, b"again"]
        # What the source's SSH server would make
        with open(path, "w", encoding="ascii"):
            pass
    assert not os.path.exists(path)


@pytest.mark.parametrize("banner", ["", "echo Authorized use only. >&2; echo Welcome"])
def test_privileges_are_had_as_the_play_has_them(tmp_path, echo, banner):
    there = Shell(tmp_path, f'{banner}\nfor last; do :; done; exec /bin/sh -c "$last"')
    there.become = become(tmp_path, SUDO)
    (tmp_path / "here").mkdir()
    here = Shell(tmp_path / "here")
    with _libvirt_way.forwarded(there, here) as way:
        # A task on the same connection, meanwhile
        there.become.build_become_command("id", None)
        assert way.path() and talk(here.socket, b"one", b"two") == [b"one", b"two"]


@pytest.mark.parametrize(
    ("script", "password", "said"),
    [
        (SUDO, "wrong", "Sorry, try again."),
        ('echo "sudo: a password is required" >&2; exit 1', None, "sudo: a password is required"),
        ('echo "ops is not in the sudoers file." >&2; exit 1', "right", "not in the sudoers file"),
    ],
)
def test_privileges_that_are_not_had_are_told(tmp_path, echo, script, password, said):
    there = Shell(tmp_path)
    there.become = become(tmp_path, script, password)
    (tmp_path / "here").mkdir()
    with _libvirt_way.forwarded(there, Shell(tmp_path / "here")) as way, pytest.raises(GridError) as caught:
        way.path()
    assert caught.value.code == "become_failed" and said in caught.value.msg
    assert "ansible_become_password" in caught.value.remedy and "wrong" not in str(caught.value.result())


def test_where_ssh_ends_at_once_the_target_cannot_be_reached(tmp_path):
    bad = Shell(tmp_path, "echo Host key verification failed. >&2; exit 255")
    with _libvirt_way.forwarded(bad, bad) as way:
        with pytest.raises(GridError) as caught:
            way.path()
        assert way.broken()
    assert caught.value.code == "target_unreachable" and "Host key verification failed" in caught.value.msg


def test_a_port_of_the_destination_leads_to_the_source(tmp_path):
    said = 'echo "Allocated port 40001 for remote forward to /s:0" >&2; for last; do :; done; exec /bin/sh -c "$last"'
    (tmp_path / "far").mkdir()
    with _ssh.relayed(Shell(tmp_path), Shell(tmp_path / "far", said), 10809) as port:
        assert port == 40001
