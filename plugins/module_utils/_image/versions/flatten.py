# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state ``flattened`` of the module ``image``: makes one layer from a version's chain of layers.

The new layer's digest is computed from the indexes, before anything is written.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.ensure import shown
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.add_layer import manifest_of
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import damaged, verify, write_layer
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot, Made, taken
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import Index, digest_of, encode, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.layout import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import (
    Manifest,
    Named,
    reference,
    version_of,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.capture import check_fields, require_chain
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

_FIELDS = ("name", "version", "new_version")


def require_version(depot: Depot, name: str, version: str) -> Manifest:
    """The manifest of a version whose layers are all there. :raises GridError: ``image_unknown``, ``layer_missing``."""
    manifest = depot.manifest(name, version)
    if manifest is None:
        raise GridError(
            "image_unknown",
            f"{reference(name, version)} is not on this host",
            remedy="See what is there: virtuoso.grid.image_info; bring it with virtuoso.grid.image_transfer",
        )
    require_chain(depot, manifest["layers"][-1])
    return manifest


def flat_index(chain: t.Sequence[Index]) -> Index:
    """The index of a single layer with the content of the chain, given the lowest first (pure)."""
    return Index(chain[-1].virtual_size, None, merge(chain))


def ensure_flattened(depot: Depot, entry: t.Mapping[str, object], progress: Progress, check_mode: bool) -> Result:
    """Store the content of a version as one layer, under another version; the entry's result, with ``diff``.

    :param entry: ``name``, ``version``, and ``new_version``; without it the version is made from the layer's digest.
    :raises GridError: ``invalid_image``, ``image_unknown``, ``layer_missing``, ``version_taken``, ``layer_corrupted``.
    """
    check_fields(entry, _FIELDS, ("name", "version"))
    name, version = check("name", entry["name"]), check("version", str(entry["version"]))
    wish = None if entry.get("new_version") is None else check("version", str(entry["new_version"]))
    manifest = require_version(depot, name, version)
    chain = depot.chain(manifest["layers"][-1])
    if len(chain) == 1 and wish in (None, version):
        return _result(depot, [], manifest)
    index = flat_index(list(chain.values()))
    digest = digest_of(encode(index))
    target = wish or version_of(digest)
    found = depot.manifest(name, target)
    if found is not None and found["layers"] != [digest]:
        raise taken(found)
    if found is not None and depot.complete(found):
        return _result(depot, [], found)
    actions = ["name"] if depot.has(digest) else ["flatten"]
    named: Named = {
        "name": manifest["name"],
        "version": target,
        "recipe_digest": manifest["recipe_digest"],
        "user": manifest["user"],
        "python": manifest["python"],
    }
    made = manifest_of(named, [digest], index.virtual_size, plan(index).size)
    if not check_mode:
        with disk_errors(depot.images):
            _do(depot, made, chain, index, progress)
    return _result(depot, actions, made)


def _do(depot: Depot, manifest: Manifest, chain: t.Mapping[str, Index], index: Index, progress: Progress) -> None:
    digest = manifest["layers"][0]
    depot.prepare()
    with depot.job(f"flatten-{digest[len('sha256:') :][:32]}") as work:
        files = {}
        if not depot.has(digest):
            path = os.path.join(work, "layer.qcow2")
            _write(depot, path, chain, index, progress)
            files[digest] = Made(path, encode(index))
        depot.commit(manifest, files, new=True)
        progress.stage("done")


def _write(depot: Depot, path: str, chain: t.Mapping[str, Index], index: Index, progress: Progress) -> None:
    """Copy each block from the topmost layer that has it, then verify it, so that damage can't get a new name."""
    owners: dict[int, str] = {}
    for digest, layer in chain.items():
        owners.update(dict.fromkeys(layer.blocks, digest))
    with contextlib.ExitStack() as stack:
        sources = []
        for digest, layer in chain.items():
            stream = stack.enter_context(open(depot.layer_path(digest), "rb"))
            places = {
                number: at
                for number, at in plan(layer).offsets.items()
                if owners[number] == digest and number in index.blocks
            }
            sources.append((stream.fileno(), places))
        write_layer(path, index, sources, lambda done, total: progress.bytes("write", done, total))
    with open(path, "rb") as stream:
        wrong = verify(stream.fileno(), plan(index).offsets, index.blocks)
    for digest in reversed(list(chain)):
        own = [number for number in wrong if owners[number] == digest]
        if own:
            raise damaged(digest, own, "this host")


def _result(depot: Depot, actions: list[str], manifest: Manifest) -> Result:
    digest = manifest["layers"][-1]
    name = reference(manifest["name"], manifest["version"])
    return {
        "reference": name,
        "digest": digest,
        "path": depot.layer_path(digest),
        "version": manifest["version"],
        "layers": manifest["layers"],
        "virtual_size": manifest["virtual_size"],
        "size": manifest["size"],
        "user": manifest["user"],
        "python": manifest["python"],
        "recipe_digest": manifest["recipe_digest"],
        "changed": bool(actions),
        "actions": actions,
        "diff": diff(f"image {name}", None, shown(manifest)) if actions else None,
    }
