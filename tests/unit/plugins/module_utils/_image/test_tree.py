# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image's tree: links in it never lead out of it."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._files import remove_tree
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import initramfs, tree
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.recipe import parse_recipe

RECIPE = {"suite": "bookworm", "size": "1 GiB", "packages": ["nano"]}


@pytest.fixture(name="root")
def _root(tmp_path):
    """A tree with a merged /usr, an absolute link and a link that climbs."""
    root = tmp_path / "tree"
    for directory in ("usr/lib/modules/6.1", "usr/bin", "etc", "boot", "var"):
        (root / directory).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "bin").symlink_to("/usr/bin")
    (root / "var/up").symlink_to("../../../../../../../../etc")
    (root / "var/loop").symlink_to("loop")
    return root


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/etc/motd", "etc/motd"),
        ("/lib/x", "usr/lib/x"),
        ("/bin/x", "usr/bin/x"),
        ("/var/up/motd", "etc/motd"),
        ("/../../etc/motd", "etc/motd"),
        ("/lib", "lib"),
        ("/new/dir/file", "new/dir/file"),
    ],
)
def test_resolve(root, path, place):
    assert tree.resolve(str(root), path) == str(root / place)


def test_a_loop_of_links(root):
    with pytest.raises(GridError, match="loop"):
        tree.resolve(str(root), "/var/loop/x")


def test_write_file(root, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (root / "etc/motd").symlink_to(outside)
    tree.write_file(str(root), "/etc/motd", b"hello", 0o600)
    tree.write_file(str(root), "/bin/run/me", b"x", 0o4755)
    assert outside.read_text() == "mine"
    assert (root / "etc/motd").read_bytes() == b"hello" and not (root / "etc/motd").is_symlink()
    assert stat.S_IMODE((root / "usr/bin/run/me").stat().st_mode) == 0o4755


def test_a_file_where_a_directory_is(root):
    with pytest.raises(GridError) as caught:
        tree.write_file(str(root), "/usr/bin", b"", 0o644)
    assert caught.value.code == "invalid_path"


def test_keep_only(root):
    (root / "usr/lib/a").write_text("")
    (root / "usr/lib/modules/6.1/b").write_text("")
    tree.keep_only(str(root), ["/usr/lib/modules", "/bin"])
    left = {
        os.path.relpath(os.path.join(top, name), root) for top, dirs, files in os.walk(root) for name in dirs + files
    }
    assert left == {"usr", "usr/lib", "usr/lib/modules", "usr/lib/modules/6.1", "usr/lib/modules/6.1/b", "bin"}


def test_find_kernel(root):
    with pytest.raises(GridError) as caught:
        tree.find_kernel(str(root))
    assert caught.value.code == "recipe_has_no_kernel"
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64"):
        (root / "boot" / f"vmlinuz-{release}").write_text(release)
    assert tree.find_kernel(str(root)) == (str(root / "boot/vmlinuz-6.1.0-56-amd64"), "6.1.0-56-amd64")


def test_remove_tree_leaves_what_links_lead_to(root, tmp_path):
    (tmp_path / "kept").mkdir()
    (root / "out").symlink_to(tmp_path / "kept")
    remove_tree(str(root))
    remove_tree(str(root))
    assert os.listdir(tmp_path) == ["kept"]


MODULES_DEP = """kernel/a/virtio_pci.ko: kernel/a/virtio.ko kernel/a/virtio_ring.ko
kernel/a/virtio.ko: kernel/a/virtio_ring.ko
kernel/a/virtio_ring.ko:
kernel/b/virtio_blk.ko.xz: kernel/a/virtio.ko kernel/a/virtio_ring.ko
"""


def test_needed_modules_in_order():
    assert initramfs.needed_modules(["virtio_pci", "virtio-blk"], MODULES_DEP) == [
        "kernel/a/virtio_ring.ko",
        "kernel/a/virtio.ko",
        "kernel/a/virtio_pci.ko",
        "kernel/b/virtio_blk.ko.xz",
    ]
    with pytest.raises(GridError) as caught:
        initramfs.needed_modules(["ext4"], MODULES_DEP)
    assert caught.value.code == "recipe_has_no_module"


def test_minimal_initramfs(root):
    (root / "usr/bin/busybox").write_bytes(b"\x7fELF")
    modules = root / "usr/lib/modules/6.1"
    (modules / "kernel/a").mkdir(parents=True)
    for name in ("virtio", "virtio_ring"):
        (modules / f"kernel/a/{name}.ko").write_bytes(name.encode())
    (modules / "modules.dep").write_text(MODULES_DEP)
    recipe = parse_recipe({**RECIPE, "initramfs": "minimal", "modules": ["virtio"]})
    entries = {path: content for path, dummy, content in initramfs.entries(recipe, str(root), "6.1")}
    assert entries["modules"] == b"/modules.d/virtio_ring.ko\n/modules.d/virtio.ko\n"
    assert entries["modules.d/virtio.ko"] == b"virtio"
    assert entries["init"].startswith(b"#!/bin/busybox sh\n")


@pytest.mark.parametrize(
    ("missing", "code"),
    [("bin/busybox", "recipe_has_no_busybox"), ("lib/modules/6.1/modules.dep", "recipe_has_no_module")],
)
def test_what_a_minimal_initramfs_needs(root, missing, code):
    for file in {"usr/bin/busybox", "usr/lib/modules/6.1/modules.dep"} - {"usr/" + missing}:
        (root / file).write_bytes(b"")
    with pytest.raises(GridError) as caught:
        initramfs.entries(parse_recipe(RECIPE), str(root), "6.1")
    assert caught.value.code == code


def test_a_distribution_without_an_initramfs(root):
    with pytest.raises(GridError) as caught:
        initramfs.make_initramfs(parse_recipe(RECIPE), str(root), "6.1", str(root / "x"))
    assert caught.value.code == "recipe_has_no_initramfs"


def test_archive():
    data = initramfs.archive([("d", stat.S_IFDIR | 0o755, b""), ("d/f", stat.S_IFREG | 0o644, b"hello")])
    assert len(data) % 4 == 0 and data.count(b"070701") == 3
    at = data.index(b"d/f\0")
    fields = [int(data[at - 104 + number * 8 : at - 96 + number * 8], 16) for number in range(13)]
    assert (fields[1], fields[6], fields[11]) == (stat.S_IFREG | 0o644, 5, 4)
    assert data[at + 6 : at + 11] == b"hello" and (at + 6) % 4 == 0
    assert b"TRAILER!!!\0" in data
