# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states ``present`` and ``absent`` of the module ``image``: decide what an image needs, then make or remove it."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import checksum
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.catalogue import (
    Wanted,
    parse_entry,
    stated_size,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.download import resolved
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.raw_disk import make
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.add_layer import layer_of_raw, manifest_of
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot, taken
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import Manifest, Named, reference
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

VERBS = {"blank": "create", "file": "import", "url": "download", "packages": "build"}


def decide(wanted: Wanted, found: Manifest | None, complete: bool, same: Manifest | None) -> list[str]:
    """The action that an image needs (pure).

    :param found: the manifest of its name and version. :param complete: whether the layers of ``found`` are there.
    :param same: a complete manifest of any name that was made from the same recipe.
    :returns: nothing; ``create``, ``import``, ``download`` or ``build``; ``name`` where only the manifest is missing;
        ``describe`` where only user or interpreter differ.
    :raises GridError: ``version_taken``.
    """
    if found is not None and found["recipe_digest"] != wanted.recipe_digest:
        raise taken(found)
    if found is not None and complete:
        return [] if (found["user"], found["python"]) == (wanted.user, wanted.python) else ["describe"]
    return ["name"] if same is not None else [VERBS[wanted.source["type"]]]


def ensure_present(
    depot: Depot,
    entry: t.Mapping[str, object],
    progress: Progress,
    check_mode: bool,
    assumed: list[Manifest] | None = None,
) -> Result:
    """Make one image if it is missing; the entry's result, with ``diff``.

    :param assumed: in check mode, the manifests that earlier entries of the same task would have made. The entry's own
        is added; what isn't known of it beforehand is empty or 0.
    """
    wanted = parse_entry(_with_digits(entry))
    assumed = [] if assumed is None else assumed
    actions, manifest = _look(depot, wanted, assumed)
    before = shown(depot.manifest(wanted.name, wanted.version))
    if actions and check_mode:
        assumed.append(_renamed(manifest or _unknown(wanted), wanted))
    elif actions:
        with disk_errors(depot.images):
            depot.prepare()
            with depot.job(_job(wanted)) as work:
                # Another run may have made it while this one waited for the lock.
                actions, manifest = _look(depot, wanted, [])
                if actions:
                    manifest = _do(depot, wanted, actions[0], manifest, work, progress)
    return {
        **_result(depot, wanted, manifest),
        "changed": bool(actions),
        "actions": actions,
        "diff": diff(f"image {reference(wanted.name, wanted.version)}", before, shown(named(wanted)))
        if actions
        else None,
    }


def _with_digits(entry: t.Mapping[str, object]) -> t.Mapping[str, object]:
    """The entry with the digits of its checksum, where it names the publisher's list instead: they say which image it
    is.

    :raises GridError: as :func:`resolved`, and ``invalid_checksum``.
    """
    source = entry.get("source")
    if not isinstance(source, t.Mapping) or source.get("type") != "url" or not source.get("checksum"):
        return entry
    stated = checksum.parse(source["checksum"])
    url = source.get("url")
    if stated.digits or not isinstance(url, str):
        return entry
    return {**entry, "source": {**source, "checksum": str(resolved(url, stated))}}


def _job(wanted: Wanted) -> str:
    return f"{VERBS[wanted.source['type']]}-{wanted.recipe_digest[len('sha256:') :][:32]}"


def _look(depot: Depot, wanted: Wanted, assumed: t.Sequence[Manifest]) -> tuple[list[str], Manifest | None]:
    """The action, and the manifest to start from: the image's own, or one of the same recipe."""
    found = next(
        (item for item in reversed(assumed) if (item["name"], item["version"]) == (wanted.name, wanted.version)), None
    )
    complete = found is not None
    if found is None:
        found = depot.manifest(wanted.name, wanted.version)
        complete = found is not None and depot.complete(found)
    same = None
    if not complete:
        there = [item for item in depot.read_manifests()[0] if depot.complete(item)]
        same = next((item for item in [*assumed, *there] if item["recipe_digest"] == wanted.recipe_digest), None)
    return decide(wanted, found, complete, same), found if complete else same


def named(wanted: Wanted) -> Named:
    """What the image's manifest says that doesn't follow from its layers (pure)."""
    return {
        "name": wanted.name,
        "version": wanted.version,
        "user": wanted.user,
        "python": wanted.python,
        "recipe_digest": wanted.recipe_digest,
    }


def _unknown(wanted: Wanted) -> Manifest:
    """The manifest of an image that isn't made in check mode."""
    return {
        **named(wanted),
        "layers": [],
        "virtual_size": stated_size(wanted.source) or 0,
        "size": 0,
        "created": None,
    }


def _renamed(known: Manifest, wanted: Wanted) -> Manifest:
    """A manifest of the same layers under the wanted name."""
    return {
        **named(wanted),
        "layers": known["layers"],
        "virtual_size": known["virtual_size"],
        "size": known["size"],
        "created": known["created"],
    }


def _do(depot: Depot, wanted: Wanted, action: str, known: Manifest | None, work: str, progress: Progress) -> Manifest:
    if action in ("describe", "name"):
        renamed = _renamed(t.cast(Manifest, known), wanted)
        depot.commit(renamed, {})
        return renamed
    disk = make(wanted, work, progress)
    digest, made, index = layer_of_raw(disk, work, {}, None, progress)
    os.unlink(disk)
    manifest = manifest_of(named(wanted), [digest], index.virtual_size, os.path.getsize(made.path))
    depot.commit(manifest, {digest: made})
    progress.stage("done")
    return manifest


def _result(depot: Depot, wanted: Wanted, manifest: Manifest | None) -> Result:
    digest = manifest["layers"][-1] if manifest and manifest["layers"] else None
    return {
        "reference": reference(wanted.name, wanted.version),
        "version": wanted.version,
        "digest": digest,
        "layers": manifest["layers"] if digest and manifest else None,
        "path": depot.layer_path(digest) if digest else None,
        "virtual_size": manifest["virtual_size"] or None if manifest else stated_size(wanted.source),
        "size": manifest["size"] or None if manifest else None,
        "user": wanted.user,
        "python": wanted.python,
        "recipe_digest": wanted.recipe_digest,
    }


def find_present(depot: Depot, entry: t.Mapping[str, object]) -> Result:
    """The result for an image that must be there already, because the entry doesn't say what to make it from.

    :param entry: ``name`` with ``version``, or ``digest``. :raises GridError: ``image_unknown``.
    """
    name, version, digest = entry.get("name"), entry.get("version"), entry.get("digest")
    for manifest in depot.read_manifests()[0]:
        match = (
            manifest["layers"][-1] == digest
            if digest
            else (manifest["name"], manifest["version"]) == (name, str(version))
        )
        if match and depot.complete(manifest):
            found = manifest["layers"][-1]
            return {
                "reference": reference(manifest["name"], manifest["version"]),
                "version": manifest["version"],
                "digest": found,
                "layers": manifest["layers"],
                "path": depot.layer_path(found),
                "virtual_size": manifest["virtual_size"],
                "size": manifest["size"],
                "user": manifest["user"],
                "python": manifest["python"],
                "recipe_digest": manifest["recipe_digest"],
                "changed": False,
                "actions": [],
                "diff": None,
            }
    raise GridError(
        "image_unknown",
        f"{shorten(digest or f'{name}@{version}')} is not on this host, and nothing says what to make it from",
        remedy="Order the image by its name alone to have the catalogue's version made, or bring this version here",
    )


def shown(manifest: Named | None) -> Result | None:
    """What a diff shows of a manifest."""
    if manifest is None:
        return None
    return {"recipe_digest": manifest["recipe_digest"], "user": manifest["user"], "python": manifest["python"]}


def ensure_absent(depot: Depot, entry: t.Mapping[str, object], check_mode: bool) -> Result:
    """Remove the image of this name and version, or all versions where none is given. Layers in use stay."""
    name = check("name", entry.get("name"))
    version = None if entry.get("version") is None else check("version", str(entry["version"]))
    manifests, dummy = depot.read_manifests()
    found = [manifest for manifest in manifests if manifest["name"] == name and version in (None, manifest["version"])]
    removed: list[str] = []
    for manifest in found:
        if not check_mode:
            with disk_errors(depot.images):
                removed += depot.remove(manifest)
    references = [reference(name, manifest["version"]) for manifest in found]
    return {
        "changed": bool(found),
        "actions": ["remove"] if found else [],
        "removed": references,
        "removed_layers": removed,
        "diff": diff(f"image {name}", {"references": references}, None) if found else None,
    }
