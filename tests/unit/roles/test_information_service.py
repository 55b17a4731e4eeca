# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's database and owner, on a server of the tests' own that logs every statement."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml
from postgresql import Server

CHECKOUT = Path(__file__).resolve().parents[3]


class Loud(Server):
    """A server with passwords, that logs what it is told."""

    def start(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.directory} "
            "-c fsync=off -c log_statement=all"
        )
        self._run(
            "pg_ctl",
            "--pgdata",
            str(self.data),
            "--log",
            str(self.directory / "log"),
            "--options",
            options,
            "--wait",
            "start",
        )
        self._run(
            "createuser",
            "--host",
            str(self.directory),
            "--port",
            str(self.port),
            "--username",
            "grid",
            "--superuser",
            "postgres",
        )
        rules = "local all grid,postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rules, encoding="utf-8")
        self._run("pg_ctl", "--pgdata", str(self.data), "reload")


@pytest.fixture
def server():
    with Loud() as running:
        yield running


def run(server, directory, *arguments, **environment):
    """The role's tasks; how many of them changed something."""
    play = {
        **{"hosts": "localhost", "connection": "local", "gather_facts": False},
        "environment": {"PGHOST": str(server.directory), "PGPORT": str(server.port)},
        "vars": {
            **{"virtuoso_state_dir": str(directory), "ansible_python_interpreter": "/usr/bin/python3"},
            **{"ansible_become_method": "ansible.builtin.sudo" if os.geteuid() else "ansible.builtin.su"},
            **{"ansible_shell_allow_world_readable_temp": True, "ansible_remote_tmp": "/tmp/virtuoso-test-ansible"},
        },
        "tasks": [
            {"ansible.builtin.include_role": {"name": "virtuoso.grid.information_service", "tasks_from": "database"}}
        ],
    }
    (directory / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", "-i", "localhost,", str(directory / "play.yml"), *arguments],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build" / "collections"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"changed=(\d+)", done.stdout).group(1)), done.stdout


def login(server, password):
    with psycopg.connect(
        host="127.0.0.1", port=server.port, user="virtuoso", password=password, dbname="virtuoso"
    ) as connection:
        return connection.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'virtuoso'"
        ).fetchone()[0]


def test_the_database_its_owner_and_his_password(server, tmp_path):
    assert run(server, tmp_path)[0] == 2
    password = (tmp_path / "store_password").read_text(encoding="utf-8").strip()
    assert len(password) == 32 and login(server, password) == "virtuoso"
    assert run(server, tmp_path)[0] == 0
    changed, said = run(server, tmp_path, "-vvv", VIRTUOSO_STORE_PASSWORD="it's another")
    assert changed == 1 and login(server, "it's another") == "virtuoso"
    with pytest.raises(psycopg.OperationalError):
        login(server, password)
    assert run(server, tmp_path, VIRTUOSO_STORE_PASSWORD="it's another")[0] == 0
    odd = "it's a \\back\\'slash"
    assert [run(server, tmp_path, VIRTUOSO_STORE_PASSWORD=odd)[0] for dummy in range(2)] == [1, 0] and login(
        server, odd
    ) == "virtuoso"
    log = (server.directory / "log").read_text(encoding="utf-8")
    assert "pg_database" in log and password not in log + said and "another" not in log + said
