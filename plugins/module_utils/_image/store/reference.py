# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""References, digests, manifests, and the file names of layers: what names an image (pure)."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, shorten


class Named(t.TypedDict):
    """What a manifest says that doesn't follow from its layers.

    ``recipe_digest``: of what the image was made from; ``None`` where that is unknown. ``user``: whom to log in as.
    ``python``: path of the interpreter in the guest.
    """

    name: str
    version: str
    recipe_digest: t.Optional[str]
    user: t.Optional[str]
    python: t.Optional[str]


class Manifest(Named):
    """One version of an image.

    ``layers``: digests, the lowest first. ``virtual_size``: bytes of the disk. ``size``: bytes of all layers' files.
    ``created``: ISO 8601 text.
    """

    layers: t.List[str]
    virtual_size: int
    size: int
    created: t.Optional[str]


MAX_MANIFEST = 2**20
"""Bytes of a manifest's JSON text."""
MAX_LAYERS = 64

_TEXT_OR_NONE = (str, type(None))
_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "version": (str,),
    "layers": (list,),
    "virtual_size": (int,),
    "size": (int,),
    "recipe_digest": _TEXT_OR_NONE,
    "user": _TEXT_OR_NONE,
    "python": _TEXT_OR_NONE,
    "created": _TEXT_OR_NONE,
}


def reference(name: str, version: str) -> str:
    """``name@version``."""
    return f"{name}@{version}"


def split_reference(value: object) -> tuple[str, str]:
    """Name and version of a reference ``name@version``. :raises GridError: ``invalid_reference``."""
    name, dummy, version = value.partition("@") if isinstance(value, str) else ("", "", "")
    try:
        return check("name", name), check("version", version)
    except GridError as exc:
        raise GridError(
            "invalid_reference",
            f"{shorten(value)} is not an image reference",
            remedy="Give name@version, for example tiny@1",
        ) from exc


def recipe_digest(description: t.Mapping[str, object]) -> str:
    """The digest of a description of what an image is made from: SHA-256 of its canonical JSON."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def version_of(digest: str) -> str:
    """The version of an image that is given none: the first 12 digits of its recipe's digest."""
    return digest[len("sha256:") :][:12]


def layer_file(digest: str) -> str:
    """The name of a layer's file: ``sha256-<hexadecimal>.qcow2``. :raises GridError: ``invalid_digest``."""
    return check("digest", digest).replace(":", "-") + ".qcow2"


def index_file(digest: str) -> str:
    """The name of a layer's index file: ``sha256-<hexadecimal>.index``. :raises GridError: ``invalid_digest``."""
    return check("digest", digest).replace(":", "-") + ".index"


def boot_file(digest: str) -> str:
    """The name of a layer's boot record: ``sha256-<hexadecimal>.boot``. :raises GridError: ``invalid_digest``."""
    return check("digest", digest).replace(":", "-") + ".boot"


def layer_digest(file: str) -> str | None:
    """The digest in the name of a layer's file; ``None`` for any other name."""
    if not file.startswith("sha256-") or not file.endswith(".qcow2"):
        return None
    try:
        return check("digest", "sha256:" + file[len("sha256-") : -len(".qcow2")])
    except GridError:
        return None


def manifest_file(name: str, version: str) -> str:
    """A manifest's file name: ``name@version.json``. :raises GridError: ``invalid_name``, ``invalid_version``."""
    return f"{check('name', name)}@{check('version', version)}.json"


def parse_manifest(value: object, file: str | None = None) -> Manifest:
    """Check a manifest from a file or another host: known fields of the right types, different layers, valid sizes.

    :param value: JSON text or its decoded value.
    :param file: the name of the file that it was read from; it must match name and version.
    :raises GridError: ``invalid_manifest``.
    """

    def bad(why: str) -> GridError:
        return GridError(
            "invalid_manifest",
            f"the manifest {shorten(file) if file else ''} {why}".replace("  ", " "),
            remedy="Remove the file and make the image again",
        )

    if isinstance(value, (str, bytes)):
        if len(value) > MAX_MANIFEST:
            raise bad("is larger than 1 MiB")
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise bad("is not JSON") from exc
    if not isinstance(value, t.Mapping):
        raise bad("is not a mapping")
    fields = {key: value.get(key) for key in _FIELDS}
    for key, kinds in _FIELDS.items():
        if not isinstance(fields[key], kinds) or isinstance(fields[key], bool):
            raise bad(f"has no proper {key}")
    manifest = t.cast(Manifest, fields)
    try:
        expected = manifest_file(manifest["name"], manifest["version"])
        layers = [check("digest", layer) for layer in manifest["layers"]]
    except GridError as exc:
        raise bad(f"is wrong: {exc.msg}") from exc
    if file is not None and file != expected:
        raise bad(f"says that it is {expected}")
    if not 1 <= len(layers) <= MAX_LAYERS or len(set(layers)) != len(layers):
        raise bad("has no chain of different layers")
    if not 0 <= manifest["size"] < 2**63 or not 0 < manifest["virtual_size"] < 2**63:
        raise bad("has a size that is out of range")
    return manifest
