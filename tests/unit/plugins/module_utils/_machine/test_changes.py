# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a change takes effect, and that the docs say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import changes
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.changes import LIVE, NEXT_START, NOW

DOCS = Path(__file__).resolve().parents[5] / "docs" / "machines.md"
MIB = 2**20
RUNNING = {
    "vcpus": 2,
    "vcpus_max": 4,
    "vcpus_removable": 1,
    "memory": 512 * MIB,
    "memory_base": 512 * MIB,
    "memory_ceiling": 1024 * MIB,
    "memory_max": 1024 * MIB,
    "balloon": True,
    "extra_networks": ["a"],
    "free_ports": 1,
    "network": "n",
    "boot": ["disk"],
    "display": "vnc",
    "display_password": None,
    "cpu_shares": 100,
    "cpu_limit": None,
    "disk_io": None,
    "description": None,
    "autostart": False,
    "virtualization": "kvm",
}


def test_the_docs_have_the_same_table():
    text = DOCS.read_text(encoding="utf-8")
    assert text.count("\n".join(["|---|---|---|", *changes.table(), ""])) == 1


def test_every_field_of_a_domain_has_a_rule():
    assert set(changes.BY_FIELD) == {*domain_xml.FIELDS, "autostart"}


@pytest.mark.parametrize(
    "field, want, awake, when",
    [
        ("vcpus", 4, True, LIVE),
        ("vcpus", 4, False, LIVE),
        ("vcpus", 5, True, NEXT_START),
        ("vcpus", 1, True, LIVE),
        ("vcpus", 1, False, NEXT_START),
        ("vcpus_max", 8, True, NEXT_START),
        ("memory", 1024 * MIB, True, LIVE),
        ("memory", 256 * MIB, True, LIVE),
        ("memory", 256 * MIB, False, NEXT_START),
        ("memory", 1026 * MIB, True, NEXT_START),
        ("memory_max", 2048 * MIB, True, NEXT_START),
        ("extra_networks", ["a", "b"], True, LIVE),
        ("extra_networks", ["a", "b"], False, LIVE),
        ("extra_networks", ["a", "b", "c"], True, NEXT_START),
        ("extra_networks", [], True, LIVE),
        ("extra_networks", [], False, NEXT_START),
        ("network", "m", True, NEXT_START),
        ("boot", ["network"], True, NEXT_START),
        ("display", "none", True, NEXT_START),
        ("cpu_shares", 200, False, LIVE),
        ("description", "x", False, LIVE),
        ("autostart", True, False, LIVE),
    ],
)
def test_when(field, want, awake, when):
    assert changes.when(field, RUNNING, want, awake) == when
    assert changes.when(field, None, want, awake) == NOW


def test_what_the_guest_can_not_do():
    assert changes.when("vcpus", {**RUNNING, "vcpus_removable": 0}, 1) == NEXT_START
    assert changes.when("vcpus", {**RUNNING, "virtualization": "qemu"}, 1) == NEXT_START
    assert changes.when("vcpus", {**RUNNING, "virtualization": "qemu"}, 4) == LIVE
    assert changes.when("memory", {**RUNNING, "balloon": False}, 256 * MIB) == NEXT_START
    assert changes.when("memory", {**RUNNING, "balloon": False}, 768 * MIB) == LIVE


def test_a_lower_bound_waits_for_nothing():
    config = {**RUNNING, "vcpus_max": 2, "memory_max": None, "boot": ["network"], "cpu_shares": 7}
    assert changes.pending(config, RUNNING) == {"boot": [["disk"], ["network"]]}
    assert changes.pending({**RUNNING, "vcpus_max": 8}, RUNNING) == {"vcpus_max": [4, 8]}
    assert changes.pending(config, None) == {}


def test_what_a_machine_that_woke_gets_late():
    config = {**RUNNING, "vcpus": 3, "boot": ["network"], "disk_io": {"read_iops": 10}, "memory": 2048 * MIB}
    assert changes.to_catch_up(config, RUNNING) == [("vcpus", 3), ("disk_io", {"read_iops": 10})]


def test_what_was_not_ordered_stays():
    assert not changes.ordered("vcpus_max", {"vcpus_max": None}) and changes.ordered("vcpus_max", {"vcpus_max": 4})
    assert not changes.ordered("autostart", {"autostart": None}) and changes.ordered("autostart", {"autostart": False})
    assert changes.ordered("description", {"description": None})


def test_what_goes_back_to_its_memory_keeps_today_s_limits():
    then = {**RUNNING, "vcpus": 1, "cpu_shares": 7, "description": "old", "display_password": "old", "autostart": True}
    now = {**RUNNING, "cpu_shares": 300, "description": None, "display_password": None, "autostart": False}
    assert changes.to_keep(now, then) == {"cpu_shares": 300, "description": None}
    assert (
        changes.to_keep({**now, "display_password": "new"}, then)["display_password"] == "new"
        and changes.to_keep(then, then) == {}
    )
