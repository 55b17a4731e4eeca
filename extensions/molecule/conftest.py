# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests share: how they reach the lab's hosts, and Ansible with the scenario's inventory.

testinfra reads an inventory without resolving its variables, so it is given the lab's hosts by an SSH configuration
instead: `ssh://provider1`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest
import testinfra

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "build" / "lab"

Connect = t.Callable[[str], testinfra.host.Host]


def _ssh_config(directory: Path) -> Path:
    """All hosts that the lab was let in on, as root; one connection to each serves all tests."""
    path = directory / "ssh_config"
    path.write_text(f'Include "{LAB / "admin_ssh_config"}"\nHost *\n  ControlPath "{directory}/%C"\n', encoding="utf-8")
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A report of its own for each of a scenario's verify steps, so that a later one doesn't overwrite an earlier
    one's."""
    first = config.option.xmlpath
    number = 1
    while config.option.xmlpath and Path(config.option.xmlpath).exists():
        number += 1
        config.option.xmlpath = str(Path(first).with_suffix(f".{number}.xml"))
    directory = Path(tempfile.mkdtemp(prefix="molecule-"))
    config.option.ssh_config = str(_ssh_config(directory))
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


@pytest.fixture(scope="session")
def connect(pytestconfig: pytest.Config) -> Connect:
    """Another host than the one that is tested, by its name in the lab."""
    return lambda name: testinfra.get_host(f"ssh://{name}", ssh_config=pytestconfig.option.ssh_config)


@pytest.fixture(scope="session")
def build() -> Path:
    """Where the scenario keeps what it has on the controller."""
    return CHECKOUT / "build" / "molecule" / os.environ["MOLECULE_SCENARIO_NAME"]


@pytest.fixture(scope="session")
def ansible() -> t.Callable[..., str]:
    """Run one of Ansible's programs with the scenario's inventory; the answer is what it printed."""

    def run(*argv: str) -> str:
        env = dict(os.environ, ANSIBLE_FORCE_COLOR="false")
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
