# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a directory tree from a recipe: packages, files and commands; the tree becomes the image's root file system."""

from __future__ import annotations

import os
import re
import shutil
import stat
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import bound_command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.recipe import Recipe, bootstrap_argv, kept
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

BOOTSTRAP_TIMEOUT = 3600
COMMAND_TIMEOUT = 1800

# mmdebstrap copies these from the building host, so that the network works meanwhile; they don't belong to the image.
_OF_THE_HOST = ("/etc/hostname", "/etc/resolv.conf")

# Run in mount and process namespaces of its own (_command.CONTAINED); the mounts end with them.
_IN_TREE = """
set -e
tree=$1
shift
mkdir -p "$tree/proc" "$tree/sys" "$tree/dev"
mount --make-rprivate /
mount -t proc proc "$tree/proc"
mount -t sysfs -o ro sysfs "$tree/sys"
mount --bind /dev "$tree/dev"
exec chroot "$tree" "$@"
"""


def make_tree(recipe: Recipe, tree: str, kernel: str, progress: Progress) -> str:
    """Make the directory ``tree`` as the recipe says, except for the initramfs.

    :param kernel: a path for a copy of the kernel, which need not stay in the tree.
    :returns: the kernel's release.
    :raises GridError: ``packages_unavailable``, ``recipe_command_failed``, ``recipe_has_no_kernel``, ``invalid_path``.
    """
    progress.stage("packages")
    bound_command(
        bootstrap_argv(recipe, tree),
        contained=True,
        timeout=BOOTSTRAP_TIMEOUT,
        # The initramfs is made once, at the end, when the files that it depends on are there.
        env={"INITRD": "No", "DEBIAN_FRONTEND": "noninteractive", "TMPDIR": os.path.dirname(tree)},
        code="packages_unavailable",
        remedy="See that the host reaches a Debian mirror (the recipe's mirrors name others), "
        "and that suite and packages are there",
    )
    for path in _OF_THE_HOST:
        _remove(resolve(tree, path))
    found, release = find_kernel(tree)
    shutil.copyfile(found, kernel)
    if recipe["keep"]:
        progress.stage("keep")
        keep_only(tree, recipe["keep"])
    progress.stage("files")
    for entry in recipe["files"]:
        write_file(tree, entry["path"], entry["content"].encode(), entry["mode"])
    for argv in recipe["commands"]:
        progress.stage("command", command=argv[0])
        run_in(tree, argv)
    return release


def run_in(tree: str, argv: t.Sequence[str]) -> str:
    """Run a command of the recipe with ``tree`` as its root directory, with /proc, /sys and /dev."""
    return bound_command(
        ["sh", "-c", _IN_TREE, "sh", tree, *argv],
        contained=True,
        timeout=COMMAND_TIMEOUT,
        env={
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "TMPDIR": "/tmp",
            "DEBIAN_FRONTEND": "noninteractive",
        },
        code="recipe_command_failed",
        remedy="Correct the recipe's command, then run the same again",
    )


def resolve(tree: str, path: str) -> str:
    """The path on this host of ``path`` in the tree. Links in its directories are followed as seen inside the tree.

    The last part is not followed: the file itself may be a link.

    :raises GridError: ``invalid_path`` for a loop of links.
    """
    waiting = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part in (".", ".."):
            done = done[:-1] if part == ".." else done
            continue
        here = os.path.join(tree, *done, part)
        if waiting and os.path.islink(here):
            links += 1
            if links > 40:
                raise GridError("invalid_path", f"the directories of {path} are a loop of links")
            goal = os.readlink(here)
            waiting = [*goal.split("/"), *waiting]
            waiting = [item for item in waiting if item]
            done = [] if goal.startswith("/") else done
            continue
        done.append(part)
    return os.path.join(tree, *done)


def write_file(tree: str, path: str, content: bytes, mode: int) -> None:
    """Write a file of the tree, replacing an older one; missing directories are made with mode 0755."""
    target = resolve(tree, path)
    parent = os.path.dirname(target)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    _remove(target)
    with open(target, "wb") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), mode)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError as exc:
        raise GridError(
            "invalid_path", f"{path} is a directory in the image", remedy="Give the file another path"
        ) from exc


def keep_only(tree: str, patterns: t.Sequence[str]) -> None:
    """Remove every file that no pattern keeps, then directories that became empty; links are never followed."""
    for top, dirs, files in os.walk(tree, topdown=False):
        inside = "" if top == tree else top[len(tree) :]
        for name in [*files, *dirs]:
            full = os.path.join(top, name)
            if kept(f"{inside}/{name}", patterns):
                continue
            if os.path.isdir(full) and not os.path.islink(full):
                if not os.listdir(full):
                    os.rmdir(full)
            else:
                os.unlink(full)


def find_kernel(tree: str) -> tuple[str, str]:
    """The path on this host of the tree's newest kernel, and its release.

    :raises GridError: ``recipe_has_no_kernel``.
    """
    boot = resolve(tree, "/boot/x")[:-2]
    found = []
    for name in os.listdir(boot) if os.path.isdir(boot) else ():
        full = os.path.join(boot, name)
        if name.startswith("vmlinuz-") and stat.S_ISREG(os.lstat(full).st_mode):
            found.append((_version_key(name), full, name[len("vmlinuz-") :]))
    if not found:
        raise GridError(
            "recipe_has_no_kernel",
            "no package of the recipe brought a kernel",
            remedy="Add one to its packages, for example linux-image-cloud-amd64",
        )
    dummy, path, release = max(found)
    return path, release


def _version_key(name: str) -> list[tuple[int, str]]:
    """A key that sorts versions by their numbers: 6.1.0-9 before 6.1.0-56."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
