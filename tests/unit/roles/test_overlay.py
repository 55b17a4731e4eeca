# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role overlay says where links don't come up: how long it waited, and where to look, by transport."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "overlay"


def tasks(name):
    return {each["name"]: each for each in yaml.safe_load((ROLE / "tasks" / name).read_text(encoding="utf-8"))}


def failing(task, tmp_path, **variables):
    """What Ansible says of an assertion of the role that fails."""
    own = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
    play = {"hosts": "all", "gather_facts": False, "vars": {**own, **variables}, "tasks": [task]}
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json",
    }
    argv = [sys.executable, "-m", "ansible.cli.playbook", "-i", "p1,p2,", "-c", "local", str(tmp_path / "play.yml")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    said = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{\n") :])[0]
    return said["plays"][0]["tasks"][0]["hosts"]["p1"]["msg"], own


@pytest.mark.parametrize(
    ("transport", "where"), [("ssh", "virtuoso-overlay-ssh@tap5"), ("wireguard", "virtuoso-overlay-wireguard")]
)
def test_a_link_that_does_not_come_up(tmp_path, transport, where):
    phase = tasks("phase.yml")
    waits = phase["Wait until the links of this phase are up"]
    down = {"device": "tap5", "peer": "p2", "network": "lan", "transport": transport, "state": "down"}
    message, own = failing(
        phase["Stop where one does not come up"],
        tmp_path,
        overlay__up={"links": [down]},
        overlay__phase=0,
        virtuoso__overlay={"phases": [{}, {}]},
    )
    # One look a second, so many times.
    assert waits["delay"] == 1 and waits["retries"] == "{{ overlay__patience }}"
    assert f" in {own['overlay__patience']} s" in message and "tap5 to p2" in message
    assert where in message and ("overlay-ssh" in message) == (transport == "ssh")


def test_a_mesh_of_which_bgp_does_not_announce_a_host(tmp_path):
    links = tasks("links.yml")
    waits = links["Wait until BGP has announced all hosts to each other"]
    peer = {"name": "p2", "address": "192.0.2.2"}
    end = {"device": "ve1", "peer": "*", "network": "lan", "transport": "evpn", "state": "down", "vteps": []}
    spoken = {"links": [{**end, "peers": [peer], "sessions": [{"peer": "p2", "state": "Active"}]}]}
    message, own = failing(links["Stop where BGP has not announced a host"], tmp_path, overlay__spoken=spoken)
    assert waits["delay"] == 1 and waits["retries"] == "{{ overlay__patience_bgp }}"
    assert f" in {own['overlay__patience_bgp']} s" in message and "p2 of network lan" in message
    assert '"Active"' in message
