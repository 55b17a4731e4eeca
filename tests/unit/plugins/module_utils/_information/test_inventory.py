# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as hosts of an inventory: groups, variables, and the way through the provider."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import entries as inventory
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.networks import Overlay

UUID = "11111111-1111-4111-8111-111111111111"
KEY = "ssh-ed25519 " + "A" * 68
PROVIDER = {
    "name": "provider1",
    "address": "198.18.0.21",
    "port": None,
    "login": None,
    "identity_file": None,
    "ssh_args": None,
}


def entries(grid, *include):
    """The inventory of the whole store, by name."""
    with grid.store.reading() as connection:
        machines, hosts = query.machines(connection), query.hosts(connection)
    found = inventory.entries(
        machines, hosts, include=include or ("existing",), known_hosts="/state/grid.db.known_hosts"
    )
    return {entry["name"]: entry for entry in found}


def options(arguments):
    """What ssh makes of its -o arguments: the values by name."""
    words = shlex.split(arguments)
    assert words[::2] == ["-o"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


def argv_of(command):
    """What a shell makes of a ProxyCommand, after ssh replaced its tokens."""
    expanded = command.replace("%%", "\0").replace("%h", "HOST").replace("%p", "PORT").replace("\0", "%")
    shown = subprocess.run(
        ["sh", "-c", f"set -- {expanded}; printf '%s\\0' \"$@\""], stdout=subprocess.PIPE, check=True
    ).stdout
    return shown.decode().split("\0")[:-1]


def test_a_machine_is_in_its_groups(grid):
    grid.running(tags=["web-server"])
    grid.order({"name": "web1", "image": "tiny", "tags": ["web-server", "a.b"]})
    entry = entries(grid)["web1"]
    assert entry["groups"] == [
        "machines",
        "state_running",
        "site_north",
        "owner_alice",
        "image_tiny",
        "tag_a_b",
        "tag_web_server",
        "ansible_ready",
    ]


def test_a_machine_has_its_variables(grid):
    uuid = grid.running()
    variables = entries(grid)["web1"]["variables"]
    assert all(name.startswith("virtuoso_") for name in variables) and None not in variables.values()
    assert variables["virtuoso_uuid"] == uuid and variables["virtuoso_reference"] == f"urn:uuid:{uuid}"
    wanted = {
        "provider": "provider1",
        "site": "north",
        "owner": "alice",
        "state": "running",
        "image": "tiny@1",
        "memory": 512 * 2**20,
        "kind": "machine",
    }
    assert {name: variables[f"virtuoso_{name}"] for name in wanted} == wanted


def test_futures_are_shown_only_when_asked_for_and_can_not_be_reached(grid):
    grid.order({"name": "web1", "image": "tiny"})
    assert entries(grid) == {}
    entry = entries(grid, "future")["web1"]
    assert entry["groups"] == ["machines", "state_future", "owner_alice", "image_tiny"] and entry["connection"] == {}


def test_a_machine_without_an_address_can_not_be_reached(grid):
    grid.running(addresses=[])
    assert entries(grid)["web1"]["connection"] == {}


def test_the_way_to_a_machine(grid):
    uuid = grid.running()
    connection = entries(grid)["web1"]["connection"]
    arguments = options(connection.pop("ansible_ssh_common_args"))
    assert connection == {
        "ansible_host": "198.18.1.5",
        "ansible_port": 22,
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_control_path": f"%(directory)s/{uuid.replace('-', '')[:16]}-%%r",
    }
    assert argv_of(arguments.pop("ProxyCommand")) == [
        "ssh",
        "-l",
        "root",
        "-o",
        "BatchMode=yes",
        "-W",
        "HOST:PORT",
        "--",
        "198.18.0.21",
    ]
    assert arguments == {
        "HostKeyAlias": uuid,
        "UserKnownHostsFile": '"/state/grid.db.known_hosts"',
        "StrictHostKeyChecking": "accept-new",
    }


@pytest.mark.parametrize(("connection", "way"), [("ssh", "198.18.0.11"), ("local", None)])
def test_a_machine_on_a_homes_network_is_reached_through_the_home(grid, connection, way):
    grid.running("web1", network="lan")
    home = {
        "name": "home1",
        "kind": "home",
        "site": "north",
        "address": "198.18.0.11",
        "facts": {"connection": connection},
    }
    grid.register([home])
    with grid.store.writing() as opened:
        overlay = Overlay(opened)
        overlay.see_networks([{"name": "lan", "home": "home1"}])
        overlay.write()
    arguments = options(entries(grid)["web1"]["connection"]["ansible_ssh_common_args"])
    assert (argv_of(arguments["ProxyCommand"])[-1] if "ProxyCommand" in arguments else None) == way


def test_machines_with_the_same_private_address_have_connections_of_their_own(grid):
    grid.running("web1", "provider1")
    grid.running("web2", "provider2")
    connections = [entries(grid)[name]["connection"] for name in ("web1", "web2")]
    assert connections[0]["ansible_host"] == connections[1]["ansible_host"]
    assert connections[0]["ansible_control_path"] != connections[1]["ansible_control_path"]


@pytest.mark.parametrize(
    "hostile",
    [
        "a b",
        "it's",
        'say "so"',
        "a;touch /tmp/x",
        "$(id)",
        "`id`",
        "100%",
        "%h",
        "%%",
        "a\\b",
        "*",
        "~",
        "#x",
        "&& id",
        "| id",
        "> /x",
        "é",
    ],
)
@pytest.mark.parametrize("column", ["identity_file", "ssh_args", "login"])
def test_whatever_a_provider_is_reached_by_stays_one_argument(column, hostile):
    value = (
        shlex.join(["-o", f"Tag={hostile}"])
        if column == "ssh_args"
        else f"/keys/{hostile}"
        if column == "identity_file"
        else hostile
    )
    argv = argv_of(inventory.jump({**PROVIDER, column: value}, target="198.18.1.5"))
    quoted = hostile.replace("\\", "\\\\").replace('"', '\\"')
    expected = {
        "ssh_args": ["-o", f"Tag={hostile}"],
        "identity_file": ["-o", f'IdentityFile="/keys/{quoted}"'],
        "login": ["-l", hostile],
    }
    assert argv == ["ssh", *expected[column], "-o", "BatchMode=yes", "-W", "HOST:PORT", "--", "198.18.0.21"]
    outer = shlex.split(
        inventory.ssh_option("ProxyCommand", inventory.jump({**PROVIDER, column: value}, target="198.18.1.5"))
    )
    assert outer == ["-o", f"ProxyCommand={inventory.jump({**PROVIDER, column: value}, target='198.18.1.5')}"]


def test_ports_and_ipv6(grid):
    assert argv_of(inventory.jump({**PROVIDER, "port": 2222, "address": "fd00::21"}, target="fd00::5")) == [
        *("ssh", "-p", "2222", "-o", "BatchMode=yes", "-W", "[HOST]:PORT", "--", "fd00::21")
    ]


def test_a_provider_without_an_address_is_reached_by_its_name():
    assert argv_of(inventory.jump({**PROVIDER, "address": None}, target="198.18.1.5"))[-1] == "provider1"


@pytest.mark.parametrize(
    ("users", "image_user", "login"),
    [
        ([], "debian", "debian"),
        ([], None, None),
        ([{"name": "alice", "ssh_authorized_keys": [KEY]}], "debian", "alice"),
        ([{"name": "alice", "ssh_authorized_keys": [KEY]}], None, "alice"),
        ([{"name": "alice", "ssh_authorized_keys": [KEY]}], "root", "root"),
        (
            [{"name": "bob", "ssh_authorized_keys": []}, {"name": "alice", "ssh_authorized_keys": [KEY]}],
            "debian",
            "alice",
        ),
        ([{"name": "bob", "ssh_authorized_keys": []}], "debian", "debian"),
    ],
)
def test_whom_to_log_in_as(users, image_user, login):
    assert inventory.login_of({"spec": {"users": users}, "facts": {"user": image_user}}) == login


def test_a_provider_is_in_the_group_of_its_site(grid):
    grid.provider(port=2222)
    entry = entries(grid)["provider1"]
    assert entry["groups"] == ["site_north"] and set(entry["variables"]) == {
        "virtuoso_kind",
        "virtuoso_uuid",
        "virtuoso_seen",
    }
    assert entry["connection"] == {
        "virtuoso_site": "north",
        "ansible_host": "198.18.0.21",
        "ansible_port": 2222,
        "ansible_user": "root",
    }


@pytest.mark.parametrize(
    ("value", "name"),
    [("north", "site_north"), ("a-b.c@d", "site_a_b_c_d"), ("{{ x }}", "site____x___"), ("é", "site__")],
)
def test_names_of_groups(value, name):
    assert inventory.group_name("site", value) == name
