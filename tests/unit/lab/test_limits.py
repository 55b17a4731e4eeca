# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab says so where the kernel has no inotify instances left for its hosts."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

_LAB = Path(__file__).resolve().parents[2] / "lab"


@pytest.fixture(name="limits")
def _limits(monkeypatch):
    """The lab's modules have names that others may have as well: they are known here only."""
    monkeypatch.syspath_prepend(_LAB)
    for name in ("command", "definition", "limits"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("limits")


@pytest.mark.parametrize(
    ("got", "hosts", "wrong"), [(52, 3, False), (51, 3, True), (4, 0, False), (3, 0, True), (0, 1, True)]
)
def test_what_hosts_need(limits, got, hosts, wrong):
    text = limits.lack(got, hosts, "128")
    assert (text is not None) is wrong
    if text:
        assert (
            f"{got} inotify instances left of fs.inotify.max_user_instances = 128" in text
            and "sysctl -w fs.inotify.max_user_instances=1024" in text
        )


def test_a_host_isn_t_started_without_them(limits, monkeypatch):
    monkeypatch.setattr(limits, "left", lambda wanted: wanted - 1)
    with pytest.raises(limits.LabError, match="3 hosts need 52"):
        limits.check(3)
    monkeypatch.setattr(limits, "left", lambda wanted: wanted)
    limits.check(3)


def test_what_is_left_is_tried(limits):
    """In a process of its own, whose instances are free again afterwards; it can have fewer files open than it wants
    instances."""
    probe = [sys.executable, "-c", limits._PROBE]  # pylint: disable=protected-access
    assert subprocess.run([*probe, "1"], capture_output=True, text=True, check=True).stdout == "1\n"
    few = subprocess.run(
        ["sh", "-c", 'ulimit -n 20 && exec "$@"', "sh", *probe, "40"], capture_output=True, text=True, check=True
    )
    assert 0 < int(few.stdout) < 20
