# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on hosts as a program is there whole: the roles' tasks are evaluated, and what they install is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MODULE_UTILS = ROOT / "plugins" / "module_utils"


def installed(role, tasks, name, directory, **variables):
    """By its path on the host, what the task of this name gives to the module ``files``, as a play evaluates it."""
    folder = ROOT / "roles" / role
    found = yaml.safe_load((folder / "tasks" / tasks).read_text(encoding="utf-8"))
    (task,) = [each for each in found if each["name"] == name]
    own = yaml.safe_load((folder / "vars" / "main.yml").read_text(encoding="utf-8"))
    directory.mkdir()
    write = {
        "ansible.builtin.copy": {"dest": f"{directory}/files.json", "content": "{{ asked | ansible.builtin.to_json }}"},
        "vars": {**task["vars"], "role_path": str(folder), "asked": task["virtuoso.grid.files"]["files"]},
    }
    play = {"hosts": "localhost", "gather_facts": False, "vars": {**own, **variables}, "tasks": [write]}
    (directory / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    for beside in ("files", "templates"):
        (directory / beside).symlink_to(folder / beside)
    argv = [
        sys.executable,
        "-m",
        "ansible.cli.playbook",
        "-i",
        "localhost,",
        "-c",
        "local",
        str(directory / "play.yml"),
    ]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {entry["path"]: entry for entry in json.loads((directory / "files.json").read_text(encoding="utf-8"))}


def modules(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in (MODULE_UTILS / folder).glob("*.py")}


def lay_out(entries, below):
    """The files of a host in a directory."""
    for path, entry in entries.items():
        place = below / path.lstrip("/")
        if entry.get("state", "file") == "file":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(entry["content"], encoding="utf-8")


def start(program, *arguments):
    argv = [sys.executable, "-E", "-s", str(program), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module", name="overlay")
def _overlay(tmp_path_factory):
    name = "Install the program, its units, and what admits the account for its tap only"
    there = {"overlay__there": {"needs": {"penalties": True}}, "overlay__sshd_settings": {}}
    there["overlay__resolved"] = {"addresses": {"p1": ["192.0.2.1", "2001:db8::1"]}}
    return installed("overlay", "install.yml", name, tmp_path_factory.mktemp("overlay") / "play", **there)


def test_a_host_of_networks_gets_the_whole_folder_and_nothing_else_stays_in_it(overlay):
    (folder,) = [path for path, entry in overlay.items() if entry.get("exclusive")]
    there = {Path(path).name: entry["content"] for path, entry in overlay.items() if str(Path(path).parent) == folder}
    assert there == modules("_overlay/host")
    assert Path(folder).parts[-4:] == ("plugins", "module_utils", "_overlay", "host")


def test_the_program_of_networks_finds_all_that_it_needs(overlay, tmp_path):
    lay_out(overlay, tmp_path)
    code = tmp_path / "usr/local/lib/virtuoso"
    done = start(code / "overlay.py", "--help")
    assert "ModuleNotFoundError" not in done.stderr and "ImportError" not in done.stderr, done.stderr
    # Without one of its modules it can't be started: what is tested here can fail.
    next(code.glob("**/host/rules.py")).unlink()
    assert "ModuleNotFoundError" in start(code / "overlay.py", "--help").stderr


def test_a_host_that_gives_images_gets_the_sender_and_all_beside_it(tmp_path):
    name = "Install the sender, which sshd starts for a host that gets images"
    entries = installed("image_server", "transfer.yml", name, tmp_path / "play")
    there = {Path(path).name: entry["content"] for path, entry in entries.items() if "content" in entry}
    folder = modules("_image/transfer/host")
    assert folder.pop("__init__.py") and there == folder
    # What it needs is there before it.
    assert list(there)[-1] == "send.py"
    lay_out(entries, tmp_path)
    done = start(tmp_path / "usr/local/lib/virtuoso/send.py", "--help")
    assert done.returncode == 0, done.stderr
