# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that was shut down: off, with its disk and its definition."""

from __future__ import annotations

testinfra_hosts = ["ssh://provider1", "ssh://provider2"]

VIRSH = "virsh --connect qemu:///system"


def test_it_is_off(host, machine):
    assert host.check_output(f"{VIRSH} domstate --reason {machine['uuid']}") == "shut off (shutdown)"
    assert host.check_output("ps -eww -o args=").count(machine["uuid"]) == 0


def test_its_disk_is_there(host, disk):
    assert host.run(f"qemu-img check -f qcow2 {disk}/disk.qcow2").rc == 0


def test_its_address_is_silent(host, machine):
    assert host.run(f"curl -s --max-time 2 http://{machine['address']}/").rc != 0


def test_store_knows(machine):
    assert machine["state"] == "stopped"


def test_inventory_knows(machine, inventory):
    assert machine["name"] in inventory["state_stopped"]["hosts"]
    assert machine["name"] not in inventory.get("state_running", {}).get("hosts", [])
