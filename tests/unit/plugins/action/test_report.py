# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report at the end of a play, as a play prints it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[4]

HOSTS = ("p1", "p2")


def play(tmp_path, **arguments):
    """What Ansible prints of a report in which each host has its own rows and results."""
    fact = {
        "rows": {"started": [{"name": "{{ inventory_hostname }}-web", "provider": "{{ inventory_hostname }}"}]},
        "announced": {"failed": False, "msg": "nft said no", "failure": {"code": "nft_failed"}},
    }
    rows = "{{ ansible_play_hosts_all | map('extract', hostvars) | map(attribute='rows') }}"
    tasks = [
        {"ansible.builtin.set_fact": fact},
        {"virtuoso.grid.report": {"results": rows, "columns": ["name", "provider"], **arguments}, "run_once": True},
    ]
    path = tmp_path / "play.yml"
    path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build" / "collections")}
    argv = [sys.executable, "-m", "ansible.cli.playbook", "-i", ",".join(HOSTS), "-c", "local", str(path)]
    return subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_rows_of_all_hosts_and_failures_that_no_machine_depends_on(tmp_path):
    done = play(tmp_path, side_steps={"announced": "announce machines", "other": "do what nobody did"})
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in lines if "-web" in line] == ["p1-web  p1", "p2-web  p2"]
    for host in HOSTS:
        assert f"{host}: could not announce machines: nft said no (nft_failed)" in done.stderr
    assert "nobody" not in done.stderr


def test_without_side_steps_nothing_is_looked_for(tmp_path):
    done = play(tmp_path, warnings=["the network is slow"])
    assert done.returncode == 0 and "the network is slow" in done.stderr and "announce" not in done.stderr
