# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a bootable disk from a tree, a kernel and an initramfs, without loop devices, mounts or the device mapper.

The disk has an MBR with the Syslinux boot code, a FAT partition with Syslinux, the kernel and the initramfs, and an
ext4 partition with the tree. Every part is written into one sparse file at its offset.
"""

from __future__ import annotations

import os
import typing as t
import uuid

from ansible_collections.virtuoso.grid.plugins.module_utils._command import bound_command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

MIB = 2**20
SECTOR = 512
BOOT_LABEL = "BOOT"
MBR_CODE = ("/usr/lib/syslinux/mbr/mbr.bin", "/usr/lib/SYSLINUX/mbr.bin", "/usr/share/syslinux/mbr.bin")
MBR_CODE_SIZE = 440  # the partition table and the disk's signature follow

# The name space of the root file systems' UUIDs, which are computed from the recipe's digest (RFC 9562, section 5.5).
_ROOT = uuid.UUID("3b0dd7a1-55a4-4be5-9f5e-5a5b5a9f4f0e")


class Layout(t.NamedTuple):
    """The partitions of a disk: offsets and sizes in bytes, all whole MiB."""

    size: int
    boot_start: int
    boot_size: int
    root_start: int
    root_size: int


def plan_layout(size: int, boot_content: int, tree_content: int) -> Layout:
    """Lay out a disk of ``size`` bytes (pure).

    The boot partition has room for two kernels, so that a newer one can be put beside the first.

    :raises GridError: ``image_too_small`` where the content doesn't fit, with the smallest size that may.
    """
    boot = max(16 * MIB, _up(2 * boot_content + 4 * MIB))
    root_start = MIB + boot
    # Beside the files, ext4 needs space for inodes, a journal and bitmaps
    needed = root_start + _up(tree_content + tree_content // 10 + 16 * MIB)
    if size < needed:
        raise GridError(
            "image_too_small",
            f"the image's content does not fit into {format_size(size)}",
            remedy=f"Give the recipe a size of {format_size(needed)} or more",
            needed=needed,
        )
    return Layout(size, MIB, boot, root_start, size - root_start)


def _up(size: int) -> int:
    return -(-size // MIB) * MIB


def root_uuid(recipe_digest: str) -> str:
    """The UUID of the root file system of a recipe's images (pure)."""
    return str(uuid.uuid5(_ROOT, recipe_digest))


def partition_table(layout: Layout) -> str:
    """The partition table as input of sfdisk(8) (pure)."""
    lines = ["label: dos", "unit: sectors"]
    for start, size, kind in (
        (layout.boot_start, layout.boot_size, "type=c, bootable"),
        (layout.root_start, layout.root_size, "type=83"),
    ):
        lines.append(f"start={start // SECTOR}, size={size // SECTOR}, {kind}")
    return "\n".join(lines) + "\n"


def boot_menu(root: str, cmdline: str) -> str:
    """The configuration of Syslinux (pure)."""
    lines = ["DEFAULT linux", "PROMPT 0", "TIMEOUT 0", "LABEL linux", "  LINUX /vmlinuz", "  INITRD /initrd.img"]
    return "\n".join([*lines, f"  APPEND root=UUID={root} {cmdline}", ""])


def tree_size(tree: str) -> int:
    """Bytes of the files of a tree, each rounded up to blocks of 4 KiB."""
    total = 0
    for top, dirs, files in os.walk(tree):
        total += sum(_up4(os.lstat(os.path.join(top, name)).st_size) for name in files) + 4096 * (len(dirs) + 1)
    return total


def _up4(size: int) -> int:
    return -(-size // 4096) * 4096


def make_disk(
    target: str,
    work: str,
    *,
    size: int,
    tree: str,
    kernel: str,
    initramfs: str,
    root: str,
    cmdline: str,
    progress: Progress,
) -> None:
    """Write the disk as a sparse raw file.

    :param target: the file to make. :param work: a directory for small files.
    :param root: the UUID of the root file system. :param cmdline: of the kernel.
    :raises GridError: ``image_too_small``, ``disk_failed``, ``program_missing``.
    """
    layout = plan_layout(size, os.path.getsize(kernel) + os.path.getsize(initramfs), tree_size(tree))
    progress.stage("disk")
    with open(target, "wb") as stream:
        stream.truncate(layout.size)
    bound_command(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", target],
        input=partition_table(layout).encode(),
        code="disk_failed",
    )
    _write_boot_code(target)
    _fill_boot(target, work, layout, {"vmlinuz": kernel, "initrd.img": initramfs}, boot_menu(root, cmdline))
    bound_command(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-L", "root", "-U", root, "-d", tree]
        + [
            "-E",
            f"offset={layout.root_start},lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            target,
            f"{layout.root_size // 1024}k",
        ],
        code="disk_failed",
        timeout=1800,
        remedy="If it says that the file system is too small, give the recipe a larger size",
    )


def _write_boot_code(target: str) -> None:
    path = next((path for path in MBR_CODE if os.path.exists(path)), None)
    if path is None:
        raise GridError(
            "program_missing",
            "the boot code of Syslinux is not installed",
            remedy="Install the Debian package syslinux-common, or run the playbook virtuoso.grid.setup on this host, "
            "which does",
        )
    with open(path, "rb") as source, open(target, "r+b") as stream:
        stream.write(source.read(MBR_CODE_SIZE))


def _fill_boot(target: str, work: str, layout: Layout, files: t.Mapping[str, str], menu: str) -> None:
    at = f"{target}@@{layout.boot_start}"
    config = os.path.join(work, "syslinux.cfg")
    with open(config, "w", encoding="ascii") as stream:
        stream.write(menu)
    quiet = {"MTOOLS_SKIP_CHECK": "1"}
    bound_command(
        [
            "mformat",
            "-i",
            at,
            "-T",
            str(layout.boot_size // SECTOR),
            "-h",
            "64",
            "-s",
            "32",
            "-H",
            str(layout.boot_start // SECTOR),
            "-v",
            BOOT_LABEL,
            "::",
        ],
        env=quiet,
        code="disk_failed",
    )
    for name, path in {**files, "syslinux.cfg": config}.items():
        bound_command(["mcopy", "-i", at, path, f"::/{name}"], env=quiet, code="disk_failed")
    bound_command(["syslinux", "--install", "--offset", str(layout.boot_start), target], env=quiet, code="disk_failed")
