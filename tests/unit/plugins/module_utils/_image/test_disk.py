# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the parts of an image's disk lie."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import bootable

MIB = 2**20
GIB = 2**30


@pytest.mark.parametrize(
    ("size", "boot", "tree"),
    [(64 * MIB, 0, 0), (96 * MIB, 15 * MIB, 12 * MIB), (2 * GIB, 21 * MIB + 1, 430 * MIB + 7), (2**41, 40 * MIB, GIB)],
)
def test_parts_follow_each_other(size, boot, tree):
    layout = bootable.plan_layout(size, boot, tree)
    assert layout.boot_start == MIB
    assert layout.boot_start + layout.boot_size == layout.root_start
    assert layout.root_start + layout.root_size == layout.size == size
    assert layout.boot_size > 2 * boot and layout.root_size > tree
    assert all(value % MIB == 0 for value in layout)


def test_too_small_says_how_large():
    with pytest.raises(GridError) as caught:
        bootable.plan_layout(64 * MIB, 15 * MIB, 60 * MIB)
    assert caught.value.code == "image_too_small"
    assert bootable.plan_layout(caught.value.details["needed"], 15 * MIB, 60 * MIB)


def test_root_uuid_follows_from_the_recipe():
    assert bootable.root_uuid("sha256:a") == bootable.root_uuid("sha256:a") != bootable.root_uuid("sha256:b")


def test_boot_menu():
    assert "APPEND root=UUID=u-1 quiet console=ttyS0\n" in bootable.boot_menu("u-1", "quiet console=ttyS0")


def test_sfdisk_understands_the_table(tmp_path):
    layout = bootable.plan_layout(2 * GIB, 20 * MIB, 400 * MIB)
    target = tmp_path / "disk"
    with target.open("wb") as stream:
        stream.truncate(layout.size)
    sfdisk = shutil.which("sfdisk", path="/usr/sbin:/sbin:/usr/bin")
    subprocess.run([sfdisk, "--quiet", str(target)], input=bootable.partition_table(layout), text=True, check=True)
    with target.open("rb") as stream:
        table = stream.read(512)[446:510]
    boot, root = (struct.unpack("<B3xB3xII", table[at : at + 16]) for at in (0, 16))
    assert boot == (0x80, 0x0C, layout.boot_start // 512, layout.boot_size // 512)
    assert root == (0, 0x83, layout.root_start // 512, layout.root_size // 512)
    assert not any(table[32:])


def test_tree_size_counts_blocks(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x")
    assert bootable.tree_size(str(tmp_path)) == 4096 * 4
