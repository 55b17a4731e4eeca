# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of all machines, as Ansible asks for it: by the controller's own process where that sees what the module
would see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.virtuoso.grid.plugins.action.order_info import plain
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.transaction import register

CHECKOUT = Path(__file__).resolve().parents[4]
NOWHERE = "/nowhere/python3"
"""With this interpreter no module can be started."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("order_info") / "grid.db"
    hosts = [{"name": "p1", "site": "p1", "kind": "provider", "address": "198.18.0.21"}]
    machine = {
        "name": "a",
        "uuid": "00000000-0000-4000-8000-000000000001",
        "owner": "alice",
        "addresses": [],
        "provider": "p1",
        "state": "running",
    }
    image = {"name": "tiny@1", "digest": "sha256:" + "a" * 64}
    register(
        "grid.db",
        {"providers": hosts, "machines": [{**machine, "image": image, "generation": 1}]},
        directory=str(path.parent),
    )
    return path


def ask(interpreter, directory, **options):
    argv = [
        sys.executable,
        "-m",
        "ansible.cli.adhoc",
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={interpreter}",
    ]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build" / "collections"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
    }
    environment["ANSIBLE_STDOUT_CALLBACK"] = "ansible.builtin.json"
    argv += ["-m", "virtuoso.grid.order_info", "-a", json.dumps(options)]
    done = subprocess.run(argv, env=environment, cwd=directory, capture_output=True, text=True, check=False)
    return json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{\n") :])[0]["plays"][0]["tasks"][0]["hosts"][
        "localhost"
    ]


def test_a_file_is_read_without_starting_a_module_and_gives_what_the_module_gives(store):
    at_once = ask(NOWHERE, store.parent, store="grid.db")
    module = ask(sys.executable, store.parent, store=str(store), names=["a"])
    assert (
        at_once["machines"] == module["machines"]
        and at_once["machines"][0]["provider"] == "p1"
        and at_once["changed"] is False
    )
    # The other one was not read at once.
    assert "machines" not in ask(NOWHERE, store.parent, store=str(store), names=["a"])


def test_a_file_that_is_no_store_is_left_to_the_module(store):
    broken = store.with_name("broken.db")
    broken.write_bytes(b"x" * 5000)
    assert ask(sys.executable, store.parent, store=str(broken))["failure"]["code"].startswith("store_")


@pytest.mark.parametrize(
    ("more", "transport", "become", "environment"),
    [
        ({"names": ["a"]}, "local", False, []),
        ({"uuids": []}, "local", False, []),
        ({"unknown": 1}, "local", False, []),
        ({"store": 5}, "local", False, []),
        ({}, "ssh", False, []),
        ({}, "local", True, []),
        ({}, "local", False, [{"HOME": "/elsewhere"}]),
    ],
)
def test_what_the_module_alone_may_answer(more, transport, become, environment):
    assert plain({"store": "grid.db", **more}, transport, become, environment) is None


def test_what_need_not_wait_for_the_module():
    assert plain({"store": "grid.db", "names": None}, "local", False, [{}]) == "grid.db"


def test_whom_a_play_is_about_is_chosen_without_starting_a_module_as_the_module_would(store):
    for interpreter in (NOWHERE, sys.executable):
        # The module itself does it where the action can't: with a URL.
        name = "grid.db" if interpreter == NOWHERE else f"sqlite:///{store}"
        told = [
            ask(interpreter, store.parent, store=name, **options)
            for options in ({"select": "a"}, {"select": "", "limit": ["p1"]}, {"select": "all", "limit": ["p2"]})
        ]
        assert [[machine["name"] for machine in each["machines"]] for each in told] == [["a"], ["a"], []]
        failure = ask(interpreter, store.parent, store=name, select="x")["failure"]
        assert (failure["code"], failure["host"], failure["object"]) == (
            "machine_unknown",
            "controller",
            f"store {name}",
        ) and failure["tried"]
        assert ask(interpreter, store.parent, store=name, select="")["failure"]["code"] == "nothing_chosen"
    assert "mutually exclusive" in ask(sys.executable, store.parent, store="grid.db", names=["a"], select="a")["msg"]
