# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that was woken and left paused gets hold of its disks, in each way that QEMU has for it."""

from __future__ import annotations

import json

import libvirt
import libvirt_qemu
import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import connection, monitor

BLOCK = [
    {"inserted": {"file": "/m/disk.qcow2", "node-name": "libvirt-2-format"}},
    {"inserted": {"file": "/m/seed.iso", "node-name": "libvirt-1-format"}},
    {},
]


class Qemu:
    """A domain, and its QEMU as old as the test says; what it was asked is written down."""

    def __init__(self, monkeypatch, state=libvirt.VIR_DOMAIN_PAUSED, **errors):
        self.paused, self.errors, self.asked = state, errors, []
        monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", self.command)

    def state(self):
        return [self.paused, 0]

    def command(self, _domain, text, _flags):
        told = json.loads(text)
        verb = told["execute"]
        self.asked.append(f"{verb} {told['arguments'].get('node-name', '')}".strip())
        kind, why = self.errors.get(verb.replace("-", "_"), (None, None))
        return json.dumps(
            {"error": {"class": kind, "desc": why}} if kind else {"return": BLOCK if verb == "query-block" else {}}
        )


UNKNOWN = ("CommandNotFound", "The command blockdev-set-active has not been found")
OLDER = ["blockdev-set-active", "query-block", "block-export-add libvirt-2-format"]


def test_a_guest_that_runs_has_its_disks(monkeypatch):
    qemu = Qemu(monkeypatch, libvirt.VIR_DOMAIN_RUNNING)
    monitor.activate(qemu)
    assert qemu.asked == []


def test_a_qemu_that_has_a_command_for_it(monkeypatch):
    qemu = Qemu(monkeypatch)
    monitor.activate(qemu)
    assert qemu.asked == ["blockdev-set-active"]


def test_an_older_qemu_without_a_server_and_with_one(monkeypatch):
    qemu = Qemu(monkeypatch, blockdev_set_active=UNKNOWN, block_export_add=("GenericError", "NBD server not running"))
    monitor.activate(qemu)
    assert qemu.asked == [*OLDER, "block-export-add libvirt-1-format"]
    qemu = Qemu(monkeypatch, blockdev_set_active=UNKNOWN)
    monitor.activate(qemu)
    assert qemu.asked == [*OLDER, "block-export-del", "block-export-add libvirt-1-format", "block-export-del"]


@pytest.mark.parametrize(
    "errors",
    [
        {"blockdev_set_active": ("GenericError", 'Failed to get "write" lock')},
        {"blockdev_set_active": UNKNOWN, "block_export_add": ("GenericError", 'Failed to get "write" lock')},
    ],
)
def test_a_disk_that_another_has(monkeypatch, errors):
    with pytest.raises(GridError) as caught:
        monitor.activate(Qemu(monkeypatch, **errors))
    assert caught.value.code == "disk_inactive" and '"write" lock' in str(caught.value)


def test_without_its_library(monkeypatch):
    qemu = Qemu(monkeypatch)
    monkeypatch.setattr(monitor, "libvirt_qemu", None)
    with pytest.raises(GridError) as caught:
        monitor.activate(qemu)
    assert caught.value.code == "library_missing"


def test_a_full_file_system_is_told_apart():
    """libvirt's own program, that writes what it saves, says it in words."""
    exc = libvirt.libvirtError("no")
    for text, code in (
        ("iohelper: Unable to write /m/s.save: No space left on device", "disk_full"),
        ("no such thing", "libvirt_error"),
    ):
        exc.err = (libvirt.VIR_ERR_OPERATION_FAILED, 0, text, 0, None, None, None, 0, 0)
        exc.args = (text,)
        assert connection.to_grid_error(exc).code == code
