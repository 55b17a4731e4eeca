# SPDX-License-Identifier: GPL-3.0-or-later
"""After the machines were retired: nothing is left of them, and images and hosts stay."""

from __future__ import annotations

testinfra_hosts = ["ssh://provider1", "ssh://provider2"]

VIRSH = "virsh --connect qemu:///system"
DEPOT = "/var/lib/virtuoso"


def test_no_domain_is_left(host):
    assert not [name for name in host.check_output(f"{VIRSH} list --all --name").split() if name.startswith("mol-")]
    assert "mol-web" not in host.check_output("ps -eww -o args=")


def test_no_directory_is_left(host):
    """Every directory of a machine is a defined domain's."""
    domains = host.check_output(f"{VIRSH} list --all --uuid").split()
    directories = host.check_output(f"find {DEPOT}/machines -mindepth 1 -maxdepth 1 -type d -printf '%f\\n'").split()
    assert set(directories) - {".staging"} <= set(domains)


def test_image_stays(host):
    assert "sha256-" in host.check_output(f"ls {DEPOT}/images/layers")


def test_no_row_is_left(rows):
    assert rows("SELECT * FROM orders") == []
    assert rows("SELECT * FROM futures") == []
    assert rows("SELECT * FROM virtualization") == []
    assert rows("SELECT name FROM host WHERE kind = 'machine'") == []
    assert {row["name"] for row in rows("SELECT name FROM host")} == {"home1", "provider1", "provider2"}
    assert rows("SELECT * FROM object WHERE kind = 'host' AND uuid NOT IN (SELECT uuid FROM host)") == []
    assert rows("PRAGMA foreign_key_check") == []


def test_no_screenshot_is_left(build):
    assert list((build / "screenshots").iterdir()) == []


def test_inventory_has_forgotten_them(inventory):
    assert inventory["_meta"]["hostvars"].keys() == {"localhost", "home1", "provider1", "provider2"}
    assert inventory.get("machines", {}).get("hosts", []) == []
