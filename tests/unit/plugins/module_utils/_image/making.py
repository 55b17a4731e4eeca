# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and layers that tests are made of."""

from __future__ import annotations

import os
import subprocess

from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import add_layer
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

from .test_reference import manifest

MIB = 2**20


def block(text):
    """A whole block that is not zeros."""
    return text.encode().ljust(BLOCK, text.encode()[:1])


def write_raw(path, size, blocks):
    """A raw disk with these blocks and holes elsewhere."""
    with open(path, "wb") as stream:
        for number, content in blocks.items():
            stream.seek(number * BLOCK)
            stream.write(content[: size - number * BLOCK])
        stream.truncate(size)
    return str(path)


def put(depot, blocks=None, size=MIB, below=None, keep=None, **changes):
    """An image in the store, made of a raw disk; its manifest.

    :param below: the manifest whose topmost layer the new one lies on. :param keep: where the raw disk is to stay.
    """
    depot.prepare()
    with depot.job("test") as work:
        raw = write_raw(os.path.join(work, "raw"), size, {0: block("layer")} if blocks is None else blocks)
        chain = depot.chain(below["layers"][-1]) if below else {}
        parent = below["layers"][-1] if below else None
        digest, made, index = add_layer.layer_of_raw(raw, work, merge(list(chain.values())), parent, Progress(None))
        layers = [*chain, digest]
        total = sum(os.stat(depot.layer_path(each)).st_size for each in chain) + os.stat(made.path).st_size
        told = manifest(layers=layers, size=total, virtual_size=index.virtual_size, **changes)
        depot.commit(told, {digest: made})
        if keep is not None:
            os.rename(raw, keep)
    return told


def qemu_img(*arguments):
    """Run qemu-img, which is a requirement of the controller; what it says."""
    return subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def same_content(raw, layer):
    """qemu-img sees no damage in the layer, and the same content as in the raw disk."""
    qemu_img("check", "-q", "-f", "qcow2", layer)
    qemu_img("compare", "-q", "-f", "raw", "-F", "qcow2", raw, layer)
