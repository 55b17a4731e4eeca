# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a raw, sparse disk from an image's source: empty, a file, a download or packages. It then becomes a layer."""

from __future__ import annotations

import os
import shutil
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._files import remove_tree
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import bootable, checksum
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.catalogue import (
    PackagesSource,
    UrlSource,
    Wanted,
    file_facts,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.download import fetch
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.initramfs import make_initramfs
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.tree import make_tree
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.unpack import unpack
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import header, kinds, qemu_img
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import PART
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

# The tree, its file system and the downloaded packages are on the disk at the same time.
_SPACE_FOR_PACKAGES = 256 * 2**20


def make(wanted: Wanted, work: str, progress: Progress) -> str:
    """Make the image's disk, a sparse raw file, in the directory ``work``.

    :returns: its path.
    :raises GridError: those of the sources' functions.
    """
    target = os.path.join(work, "disk.raw")
    source = wanted.source
    if source["type"] == "blank":
        _blank(target, source["size"])
    elif source["type"] == "file":
        _import(source["path"], source["format"], work, target, progress)
    elif source["type"] == "url":
        _from_url(source, work, target, progress)
    else:
        _from_packages(source, wanted.recipe_digest, work, target, progress)
    return target


def _blank(target: str, size: int) -> None:
    with open(target, "wb") as stream:
        stream.truncate(size)


def import_file(path: str, image_format: str, target: str, progress: Progress) -> None:
    """Check an untrusted image and convert it to a raw disk.

    :raises GridError: those of :func:`header.judge`; ``image_unreadable``; ``image_changed`` where something writes to
        the file meanwhile.
    """
    progress.stage("inspect")
    before = file_facts(path)
    head = _head(path)
    size = header.judge(head, before.st_size, image_format, _tail(path))
    facts = qemu_img.info(path, image_format)
    agree(facts, image_format, size)
    if image_format == "qcow2":
        refuse_corrupt(qemu_img.check(path))
    # For the raw disk, and for the layer that is made from it.
    check_space(os.path.dirname(target), min(before.st_blocks * 512, before.st_size) * 2, "the image")
    progress.stage("convert")
    qemu_img.convert(path, image_format, target)
    after = file_facts(path)
    if (after.st_ino, after.st_size, after.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns) or _head(
        path
    ) != head:
        raise GridError(
            "image_changed",
            f"{path} changed while it was read",
            remedy="Wait until nothing writes to the file, then run the same again",
        )


def _head(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(header.HEAD_SIZE)


def _tail(path: str) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - kinds.TAIL))
        return stream.read(kinds.TAIL)


def unpacked(path: str, work: str, progress: Progress) -> str:
    """The path of an image that isn't compressed: the file itself, or what comes out of it.

    :raises GridError: as :func:`unpack`, and ``image_wrong_format`` for what is compressed twice.
    """
    kind = kinds.recognise(_head(path), _tail(path))
    if kind not in kinds.PACKED:
        return path
    target = os.path.join(work, "unpacked" + PART)
    progress.stage("unpack")
    unpack(path, kind, target, progress)
    return target


def agree(facts: t.Mapping[str, object], image_format: str, size: int) -> None:
    """Require that qemu-img sees the same image as :mod:`header` (pure).

    :param facts: the answer of ``qemu-img info``. :param size: bytes of the disk.
    :raises GridError: ``image_unreadable``, ``image_has_backing_file``.
    """
    if any(key in facts for key in ("backing-filename", "full-backing-filename")):
        raise GridError(
            "image_has_backing_file",
            "the image names a backing file",
            remedy="Give an image that depends on no other file: qemu-img convert makes one",
        )
    if facts.get("format") != image_format or facts.get("virtual-size") not in (size, -(-size // 512) * 512):
        raise GridError(
            "image_unreadable",
            "qemu-img sees another image than its header tells",
            remedy="Get the file again from a source that you trust",
        )


def refuse_corrupt(found: t.Mapping[str, object]) -> None:
    """Refuse an image in which ``qemu-img check`` found errors (pure). :raises GridError: ``image_damaged``."""
    wrong = {key: found[key] for key in ("corruptions", "check-errors") if found.get(key)}
    if wrong:
        raise GridError(
            "image_damaged",
            f"qemu-img check finds errors in the image: {wrong}",
            remedy="Get the file again, or repair it with qemu-img check -r all",
        )


def _from_url(source: UrlSource, work: str, target: str, progress: Progress) -> None:
    download = os.path.join(work, "download" + PART)
    fetch(source["url"], checksum.parse(source["checksum"]), download, progress)
    _import(download, source["format"], work, target, progress)
    os.unlink(download)


def _import(path: str, image_format: str, work: str, target: str, progress: Progress) -> None:
    image = unpacked(path, work, progress)
    import_file(image, image_format, target, progress)
    if image != path:
        os.unlink(image)


def _from_packages(recipe: PackagesSource, digest: str, work: str, target: str, progress: Progress) -> None:
    check_space(work, _SPACE_FOR_PACKAGES, "building the image")
    tree, kernel = (os.path.join(work, name) for name in ("tree", "vmlinuz"))
    umask = os.umask(0o022)
    try:
        release = make_tree(recipe, tree, kernel, progress)
        progress.stage("initramfs")
        made = make_initramfs(recipe, tree, release, os.path.join(work, "initrd.img"))
        initramfs = os.path.join(work, "initrd")
        shutil.copyfile(made, initramfs)
        bootable.make_disk(
            target,
            work,
            size=recipe["size"],
            tree=tree,
            kernel=kernel,
            initramfs=initramfs,
            root=bootable.root_uuid(digest),
            cmdline=recipe["cmdline"],
            progress=progress,
        )
    finally:
        os.umask(umask)
    remove_tree(tree)
