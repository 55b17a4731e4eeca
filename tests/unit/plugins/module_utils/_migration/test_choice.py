# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way a machine goes, and every reason why it can't."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice

MIB = 2**20
VIEW = {
    "uuid": "u",
    "name": "web1",
    "state": "running",
    "memory": 512 * MIB,
    "disk": 1024 * MIB,
    "disk_used": 100 * MIB,
    "layers": ["sha256:a", "sha256:b"],
    "tied": [],
    "pages": None,
    "snapshots": 0,
    "machine_type": "pc-q35-7.2",
    "virtualization": "qemu",
    "network": "virtuoso",
    "mac": "02:00:00:00:00:01",
    "lease": "192.0.2.7",
}
TARGET = {
    "name": "p2",
    "memory": 2048 * MIB,
    "memory_free": 2000 * MIB,
    "memory_allocated": 512 * MIB,
    "disk_free": 1024 * MIB,
    "networks": ["virtuoso"],
    "machine_types": ["pc-q35-7.2", "pc-q35-8.0"],
    "virtualization": "qemu",
    "libvirt_version": "9.0.0",
    "qemu_version": "7.2.0",
    "layers": ["sha256:a"],
    "domains": {},
    "leases": {},
}


def codes(view=None, target=None, mode="live", **options):
    return [
        error.code for error in choice.check(mode, {**VIEW, **(view or {})}, {**TARGET, **(target or {})}, **options)
    ]


def test_nothing_is_in_its_way():
    assert codes() == []
    assert codes({"state": "stopped"}, mode="cold") == []
    assert codes({"state": "hibernated", "memory_file": 50 * MIB}, mode="hibernated") == []


@pytest.mark.parametrize(
    ("code", "view", "target", "mode"),
    [
        ("wrong_state", {"state": "stopped"}, {}, "live"),
        ("wrong_state", {}, {}, "cold"),
        ("wrong_state", {"state": "stopped"}, {}, "hibernated"),
        ("disk_missing", {"disk": None}, {}, "live"),
        ("device_tied", {"tied": ["a device of the host (hostdev usb)"]}, {}, "live"),
        ("machine_pages", {"pages": {"host": "h"}}, {}, "live"),
        ("has_snapshots", {"snapshots": 2}, {}, "live"),
        ("version_too_old", {}, {"libvirt_version": "7.10.0"}, "live"),
        ("version_too_old", {}, {"qemu_version": "6.1.9"}, "live"),
        ("virtualization_missing", {"virtualization": "kvm"}, {}, "live"),
        ("machine_type_missing", {"machine_type": "pc-q35-10.0"}, {}, "live"),
        ("cpu_incompatible", {"virtualization": "kvm"}, {"virtualization": "kvm", "cpu": {"u": False}}, "live"),
        ("network_missing", {"network": "lan"}, {}, "live"),
        ("network_missing", {"extra_networks": ["lan"]}, {}, "live"),
        ("no_memory", {"memory": 1537 * MIB}, {}, "live"),
        ("no_memory", {}, {"memory_free": 100 * MIB}, "live"),
        ("no_memory", {}, {"memory_promised": 1025 * MIB}, "live"),
        ("no_disk", {"disk_used": 1025 * MIB}, {}, "live"),
        ("no_disk", {}, {"disk_promised": 1000 * MIB}, "live"),
        ("foreign_domain", {}, {"domains": {"web1": "other"}}, "live"),
        ("address_taken", {}, {"leases": {"192.0.2.7": "02:00:00:00:00:99"}}, "live"),
    ],
)
def test_each_reason(code, view, target, mode):
    found = choice.check(mode, {**VIEW, **view}, {**TARGET, **target})
    assert [error.code for error in found] == [code]
    assert found[0].remedy


def test_all_reasons_are_told_at_once():
    assert codes({"tied": ["x"], "network": "lan"}, {"memory_free": 0}) == [
        "device_tied",
        "network_missing",
        "no_memory",
    ]


def test_layers_come_first_or_must_be_there():
    assert codes(layers_come=True) == []
    assert codes(layers_come=False) == ["image_missing"]
    assert codes(target={"layers": ["sha256:a", "sha256:b"]}, layers_come=False) == []


def test_its_own_domain_or_lease_is_no_obstacle():
    assert codes(target={"domains": {"web1": "u"}, "leases": {"192.0.2.7": VIEW["mac"]}}) == []
    assert codes({"state": "stopped"}, {"leases": {"192.0.2.7": "02:00:00:00:00:99"}}, mode="cold") == []


def test_the_host_keeps_its_reserve():
    assert codes(reserve=1024 * MIB) == [] and codes(reserve=1025 * MIB) == ["no_memory"]


@pytest.mark.parametrize(
    ("state", "speed", "mode"),
    [
        ("running", None, "live"),
        ("paused", None, "live"),
        ("stopped", None, "cold"),
        ("hibernated", None, "hibernated"),
        ("running", 12.5e6, "live"),
        ("running", 100e3, "hibernated"),
        ("stopped", 100e3, "cold"),
    ],
)
def test_the_mode_follows_state_and_link(state, speed, mode):
    assert choice.choose_mode(state, 512 * MIB, speed) == mode


def devices(xml):
    return choice.tied(ET.fromstring(f"<domain><devices>{xml}</devices></domain>"))


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        ("<hostdev mode='subsystem' type='usb'/>", "hostdev usb"),
        ("<redirdev bus='usb' type='tcp'/>", "redirdev"),
        ("<filesystem type='mount'/>", "directory"),
        ("<tpm model='tpm-crb'/>", "TPM"),
        ("<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda'/></disk>", "disk sda"),
        ("<disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='vdc'/></disk>", "disk vdc"),
        ("<interface type='direct'><source dev='eth0'/></interface>", "interface direct"),
        ("<serial type='file'><source path='/x'/></serial>", "serial file"),
    ],
)
def test_what_is_tied_to_the_host(xml, word):
    assert len(devices(xml)) == 1 and word in devices(xml)[0]


def test_what_comes_along():
    assert (
        devices(
            "<disk type='file'><source file='/m/disk.qcow2'/><target dev='vda'/></disk>"
            "<disk type='file'><source file='/m/seed.iso'/><target dev='vdb'/></disk>"
            "<disk type='network' device='cdrom'><source protocol='nbd'/><target dev='sda'/></disk>"
            "<disk type='file' device='cdrom'><target dev='sdb'/></disk>"
            "<interface type='network'/><interface type='bridge'/><serial type='pty'/><channel type='unix'/>"
            "<rng/><memballoon/><graphics type='vnc'/>"
            "<memory model='virtio-mem'><target><size>1</size></target></memory>"
        )
        == []
    )
