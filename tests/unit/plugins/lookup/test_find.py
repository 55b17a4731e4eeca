# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup and the playbook find, as Ansible runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import Grid

CHECKOUT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("lookup") / "grid.db"
    Grid(60, providers=3, sites=2, networks=3, seed=3).write(str(path))
    return path


def run(*arguments, store):
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build" / "collections"),
        "VIRTUOSO_STORE": str(store),
    }
    environment["ANSIBLE_STDOUT_CALLBACK"] = (
        "ansible.builtin.oneline" if arguments[0] == "adhoc" else "ansible.builtin.json"
    )
    argv = [sys.executable, "-m", f"ansible.cli.{arguments[0]}", "-i", "localhost,", *arguments[1:]]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def look(expression, store):
    done = run(
        "adhoc",
        "localhost",
        "-c",
        "local",
        "-m",
        "ansible.builtin.debug",
        "-a",
        f"msg={{{{ {expression} | to_json }}}}",
        store=store,
    )
    text = done.stdout + done.stderr
    return done.returncode, text


def test_terms_are_conditions(store):
    code, text = look(
        "query('virtuoso.grid.find', 'memory_available >= 1 KiB', of='provider', include=['physical'])"
        " | map(attribute='name') | sort",
        store,
    )
    assert code == 0 and all(f"provider0000{number}" in text for number in range(3)) and "machine" not in text


def test_sets(store):
    options = (
        "of='machine', size=4, same=['network'], sum=['memory >= 512 MiB', 'memory <= 1 GiB'], within='30 s', limit=3"
    )
    code, text = look(
        f"query('virtuoso.grid.find', {options}) | map(attribute='members') | map('length') | list", store
    )
    assert code == 0 and "[4, 4, 4]" in text


@pytest.mark.parametrize(
    ("options", "failure"),
    [
        ("'colour == blue'", "unknown_column"),
        ("within='0'", "invalid_deadline"),
        ("sql='DROP TABLE host'", "sql_not_read_only"),
    ],
)
def test_errors_have_their_codes(store, options, failure):
    code, text = look(f"query('virtuoso.grid.find', {options})", store)
    assert code != 0 and failure in text and "Traceback" not in text


def test_the_playbook(store):
    asked = {
        "find_of": "machine",
        "find_size": 4,
        "find_same": ["network"],
        "find_within": "30 s",
        "find_limit": 2,
        "find_seed": 5,
    }
    asked["find_sum"] = ["memory >= 512 MiB", "memory <= 1 GiB"]
    done = run(
        "playbook",
        "virtuoso.grid.find",
        "-e",
        json.dumps({**asked, "ansible_python_interpreter": sys.executable}),
        store=store,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = [task for play in json.loads(done.stdout)["plays"] for task in play["tasks"]]
    shown = next(
        host["msg"] for task in tasks for host in task["hosts"].values() if task["task"]["name"] == "Show the answers"
    )
    assert len(shown["found"]) == 2 and shown["answer"] in ("complete", "sample") and shown["cost"]["seconds"] > 0
