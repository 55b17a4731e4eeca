# SPDX-License-Identifier: GPL-3.0-or-later
"""The README's walk, as somebody makes it who has two bare hosts, an account with sudo and a password, and Ansible
without settings: the commands are the README's own, the collection comes from its archive."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "build" / "lab"
PLACE = CHECKOUT / "build" / "walk"
HOSTS = {"provider1": ("walk1", "bare-bookworm", "198.18.0.43"), "provider2": ("walk2", "bare-trixie", "198.18.0.44")}
"""What the example calls them: the lab's name, image and address."""
ACCOUNT = "ops"
DEADLINE = 900

# Galaxy is not to be reached here; what the collection depends on is put where it would be.
OFFLINE = {"ansible-galaxy collection install": " --no-deps"}
LATER = (
    "ansible -i grid ansible_ready -m ping",
    "ansible -i grid machines -m raw -a hostname",
    "ansible-playbook -i grid virtuoso.grid.report",
    "ansible-playbook -i grid virtuoso.grid.doctor -e machine=web1 -e port=443",
    "ansible-playbook -i grid virtuoso.grid.retire --limit web1",
)
"""Of the README's second block, what this walk goes on to."""


def commands() -> tuple[list[str], list[str]]:
    """The README's two blocks of commands about hosts of one's own, without their comments."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## The same on your own hosts")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    first, second = ([re.sub(r"\s+#.*", "", line).strip() for line in block.splitlines()] for block in blocks[:2])
    return [line for line in first if line], [line for line in second if line]


def test_the_walk_is_the_readmes():
    first, second = commands()
    assert first[0].startswith("make package") and first[-1] == "ansible-playbook -i grid virtuoso.grid.deploy"
    assert set(LATER) <= set(second)


def lab(*words: str) -> None:
    subprocess.run(
        ["/usr/bin/python3", str(CHECKOUT / "tests" / "lab" / "lab.py"), *words], check=True, stdin=subprocess.DEVNULL
    )


class Walker:
    """Somebody with a home directory, a virtual environment and a shell."""

    def __init__(self) -> None:
        shutil.rmtree(PLACE, ignore_errors=True)
        self.home, self.work = PLACE / "home", PLACE / "work"
        for directory in (self.home / ".ssh", self.work):
            directory.mkdir(parents=True)
        # What the README's commands find in a checkout
        for name in ("inventory", "build"):
            (self.work / name).symlink_to(CHECKOUT / name)
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{PLACE}/venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "ANSIBLE_FORCE_COLOR": "false",
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")},
        }

    def run(self, command: str, *, fails: bool = False) -> str:
        """What a command says. It is told whole where it ends otherwise than it should."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        said = f"$ {command}\n{done.stdout}"
        print(said)
        assert (done.returncode != 0) == fails, f"ended with {done.returncode}: {said[-6000:]}"
        return done.stdout

    def edit(self) -> None:
        """What the README says with $EDITOR: one's own hosts, and how one gets there."""
        hosts = self.work / "grid" / "hosts.yml"
        text = hosts.read_text(encoding="utf-8")
        for name, (dummy, dummy_image, address) in HOSTS.items():
            text = re.sub(rf"({name}:\n\s+ansible_host: )\S+", rf"\g<1>{address}", text)
        hosts.write_text(text.replace("ansible_user: root", f"ansible_user: {ACCOUNT}"), encoding="utf-8")
        password = (LAB / "sudo_password").read_text(encoding="ascii")
        # ssh takes a user's own files from the directory that the system has for him, not from HOME.
        known = f"-o UserKnownHostsFile={self.home}/.ssh/known_hosts"
        (self.work / "grid" / "group_vars" / "providers.yml").write_text(
            f"ansible_become_password: '{password}'\nansible_ssh_private_key_file: {LAB}/id_ed25519\n"
            f"ansible_ssh_common_args: {known}\n",
            encoding="utf-8",
        )
        (self.work / "grid" / "group_vars" / "machines.yml").write_text(
            "ansible_ssh_private_key_file: ~/.ssh/id_ed25519\n", encoding="utf-8"
        )


@pytest.fixture(scope="module", name="walker")
def _walker() -> t.Iterator[Walker]:
    for name, image, address in HOSTS.values():
        lab("host-up", name, "--image", image, "--address", address, "--account", ACCOUNT)
    walker = Walker()
    try:
        shutil.copy(LAB / "known_hosts", walker.home / ".ssh" / "known_hosts")
        # What he has before he begins: Ansible, as pip installs it.
        walker.run(f"/usr/bin/python3 -m venv {PLACE}/venv && pip install -q --disable-pip-version-check ansible-core")
        walker.run(f"ssh-keygen -q -t ed25519 -N '' -f {walker.home}/.ssh/id_ed25519")
        collections = walker.home / ".ansible" / "collections" / "ansible_collections"
        shutil.copytree(
            CHECKOUT / "build" / "collections" / "ansible_collections",
            collections,
            ignore=lambda directory, names: ["virtuoso"] if directory.endswith("ansible_collections") else [],
        )
        yield walker
    finally:
        for name, dummy, dummy_address in HOSTS.values():
            lab("host-down", name)


def test_the_first_hour(walker: Walker):
    said = {}
    for command in commands()[0]:
        if command.startswith("make package"):
            subprocess.run(["make", "package"], cwd=CHECKOUT, check=True, stdin=subprocess.DEVNULL)
        elif command.startswith("$EDITOR"):
            walker.edit()
        else:
            more = next((words for start, words in OFFLINE.items() if command.startswith(start)), "")
            said[command] = walker.run(command + more)
    deployed = said["ansible-playbook -i grid virtuoso.grid.deploy"]
    assert re.search(r"^web1 .* running", deployed, re.MULTILINE) and re.search(
        r"^probe1 .* running", deployed, re.MULTILINE
    )
    assert all(len(line) <= 120 for line in deployed.splitlines() if line.startswith(("web1 ", "probe1 ", "NAME ")))


def test_what_was_made_is_used_at_once(walker: Walker):
    ping, raw, report, doctor, dummy = LATER
    assert re.search(r"web1 \| SUCCESS", walker.run(ping))
    said = walker.run(raw)
    assert "web1 | CHANGED" in said and "probe1 | CHANGED" in said
    again = walker.run("ansible-playbook -i grid virtuoso.grid.deploy")
    assert not re.search(r"changed=[1-9]", again), "a second run changed something"
    assert "web1" in walker.run(report)
    # Nothing listens there, and it says so.
    assert "web1" in walker.run(doctor, fails=True)


def test_and_thrown_away(walker: Walker):
    walker.run(LATER[-1])
    assert "web1" not in walker.run("ansible -i grid machines --list-hosts")
    walker.run("ansible-playbook -i grid virtuoso.grid.retire -e machines=all")
