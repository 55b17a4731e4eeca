# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the initramfs of an image: the distribution's own, or a minimal one.

The minimal one is a static busybox, the kernel modules that the disk needs, and a script that grows the root partition
to the end of the disk, mounts it and switches to it.
"""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import bound_command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.recipe import Recipe
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.tree import resolve, run_in

BUSYBOX = "/bin/busybox"

# The root partition is the second of the partition table: its start and length are two little-endian 32-bit numbers at
# 446 + 16 + 8. The length is rewritten where the disk has grown; nothing of the disk is mounted at that time.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r file; do insmod "$file"; done < /modules
root= init=/sbin/init
for word in $(cat /proc/cmdline); do
    case $word in
        root=*) root=${word#root=} ;;
        init=*) init=${word#init=} ;;
    esac
done
tries=0
while :; do
    case $root in
        *=*) device=$(findfs "$root" 2>/dev/null) ;;
        *) device=$root ;;
    esac
    [ -n "$device" ] && [ -b "$device" ] && break
    tries=$((tries + 1))
    if [ "$tries" -gt 150 ]; then
        echo "The root file system $root did not appear." > /dev/console
        exec sh > /dev/console 2>&1 < /dev/console
    fi
    sleep 0.2
done
name=${device#/dev/}
disk=${name%2}
if [ -e "/sys/class/block/$disk/size" ] && [ "$(cat "/sys/class/block/$name/partition")" = 2 ]; then
    read -r sectors < "/sys/class/block/$disk/size"
    set -- $(hexdump -s 470 -n 8 -e '1/4 "%u "' "/dev/$disk")
    [ "$sectors" -gt 4294967295 ] && sectors=4294967295
    length=$((sectors - $1))
    if [ "$length" -gt "$2" ]; then
        bytes=
        for shift in 0 8 16 24; do bytes=$bytes$(printf '\\\\%03o' $(((length >> shift) & 255))); done
        printf "$bytes" | dd of="/dev/$disk" bs=1 seek=474 conv=notrunc,fsync 2>/dev/null
        blockdev --rereadpt "/dev/$disk"
        tries=0
        while [ ! -b "$device" ] && [ "$tries" -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
    fi
fi
mount "$device" /root || exec sh > /dev/console 2>&1 < /dev/console
umount /proc
umount /sys
mount -o move /dev /root/dev
exec switch_root /root "$init"
"""

Entry = t.Tuple[str, int, bytes]
"""A file of the archive: path without a leading slash, mode with type bits, content or a link's target."""


def make_initramfs(recipe: Recipe, tree: str, release: str, target: str) -> str:
    """Make the initramfs of the kernel ``release``.

    :param target: a path for a minimal one; the distribution's lies in the tree.
    :returns: the path of the initramfs on this host.
    :raises GridError: ``recipe_command_failed``, ``recipe_has_no_initramfs``, ``recipe_has_no_busybox``,
        ``recipe_has_no_module``.
    """
    if recipe["initramfs"] == "distribution":
        program = resolve(tree, "/usr/sbin/update-initramfs")
        if not os.path.exists(program):
            raise GridError(
                "recipe_has_no_initramfs",
                "no package of the recipe makes an initramfs",
                remedy="Add initramfs-tools to its packages, or give initramfs: minimal",
            )
        run_in(tree, ["update-initramfs", "-c", "-k", release])
        return resolve(tree, f"/boot/initrd.img-{release}")
    plain = target + ".cpio"
    with open(plain, "wb") as stream:
        stream.write(archive(entries(recipe, tree, release)))
    bound_command(["zstd", "-q", "-f", "-19", "-T0", plain, "-o", target])
    os.unlink(plain)
    return target


def entries(recipe: Recipe, tree: str, release: str) -> list[Entry]:
    """The files of a minimal initramfs."""
    modules = f"/lib/modules/{release}"
    files = needed_modules(recipe["modules"], _read(tree, f"{modules}/modules.dep", "recipe_has_no_module").decode())
    directories = ["bin", "dev", "proc", "sys", "root", "modules.d"]
    listed = [f"modules.d/{os.path.basename(file)}" for file in files]
    return [
        *((name, stat.S_IFDIR | 0o755, b"") for name in directories),
        ("bin/busybox", stat.S_IFREG | 0o755, _read(tree, BUSYBOX, "recipe_has_no_busybox")),
        ("init", stat.S_IFREG | 0o755, INIT.encode()),
        ("modules", stat.S_IFREG | 0o644, "".join(f"/{name}\n" for name in listed).encode()),
        *(
            (name, stat.S_IFREG | 0o644, _read(tree, f"{modules}/{file}", "recipe_has_no_module"))
            for name, file in zip(listed, files)
        ),
    ]


def _read(tree: str, path: str, code: str) -> bytes:
    try:
        with open(resolve(tree, path), "rb") as stream:
            return stream.read()
    except OSError as exc:
        raise GridError(
            code,
            f"a minimal initramfs needs {path} in the image, which is not there",
            remedy="Have busybox-static and a kernel in the recipe's packages, run busybox depmod in its commands, "
            "and keep both",
        ) from exc


def needed_modules(names: t.Sequence[str], modules_dep: str) -> list[str]:
    """The files of the named modules and of those that they need, in the order of loading (pure).

    :param modules_dep: the text of depmod's file: ``path: paths of the modules it needs, nearest first``.
    :raises GridError: ``recipe_has_no_module``, also for a module that is built into the kernel: it has no file.
    """
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.splitlines():
        file, dummy, rest = line.partition(":")
        needs[file] = rest.split()
        by_name[os.path.basename(file).split(".")[0].replace("_", "-")] = file
    order: list[str] = []
    for name in names:
        wanted = by_name.get(name.replace("_", "-"))
        if wanted is None:
            raise GridError(
                "recipe_has_no_module",
                f"the kernel has no module {name}",
                remedy="Correct the recipe's modules; leave out what is built into the kernel",
            )
        # depmod lists all that are needed, the one to be loaded first at the end
        for file in [*reversed(needs[wanted]), wanted]:
            if file not in order:
                order.append(file)
    return order


def archive(files: t.Iterable[Entry]) -> bytes:
    """A cpio archive in the kernel's format "newc"; files belong to root and have no times (pure).

    Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    parts = []
    for number, (path, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], start=1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts += [head, b"\0" * (-len(head) % 4), content, b"\0" * (-len(content) % 4)]
    return b"".join(parts)
