# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What names an image: references, manifests and digests (pure)."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, shorten

Manifest = t.Dict[str, t.Any]

MAX_MANIFEST = 2**20
MAX_LAYERS = 64

_TEXT_OR_NONE = (str, type(None))
_FIELDS: dict[str, t.Any] = {
    "name": str,
    "version": str,
    "layers": list,
    "virtual_size": int,
    "size": int,
    "recipe_digest": _TEXT_OR_NONE,
    "user": _TEXT_OR_NONE,
    "python": _TEXT_OR_NONE,
    "created": _TEXT_OR_NONE,
}


def reference(name: str, version: str) -> str:
    """``name@version``."""
    return f"{name}@{version}"


def split_reference(value: t.Any) -> tuple[str, str]:
    """Name and version of a reference. :raises GridError: ``invalid_reference``."""
    name, dummy, version = value.partition("@") if isinstance(value, str) else ("", "", "")
    try:
        return check("name", name), check("version", version)
    except GridError as exc:
        raise GridError(
            "invalid_reference",
            f"{shorten(value)} is not an image reference",
            remedy="Give name@version, for example tiny@1",
        ) from exc


def recipe_digest(description: t.Mapping[str, t.Any]) -> str:
    """The digest of what an image is made of: SHA-256 of its canonical JSON."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def version_of(digest: str) -> str:
    """The version that an image has where none is given: the first 12 digits of its recipe's digest."""
    return digest[len("sha256:") :][:12]


def layer_file(digest: str) -> str:
    """The name of a layer's file: ``sha256-<hexadecimal>.qcow2``. :raises GridError: ``invalid_digest``."""
    return check("digest", digest).replace(":", "-") + ".qcow2"


def index_file(digest: str) -> str:
    """The name of the file of a layer's index: ``sha256-<hexadecimal>.index``.
    :raises GridError: ``invalid_digest``."""
    return check("digest", digest).replace(":", "-") + ".index"


def boot_file(digest: str) -> str:
    """The name of the file that says what a boot reads: ``sha256-<hexadecimal>.boot``.
    :raises GridError: ``invalid_digest``."""
    return check("digest", digest).replace(":", "-") + ".boot"


def layer_digest(file: str) -> str | None:
    """The digest that a file's name says, ``None`` for a name that is no layer's."""
    if not file.startswith("sha256-") or not file.endswith(".qcow2"):
        return None
    try:
        return check("digest", "sha256:" + file[len("sha256-") : -len(".qcow2")])
    except GridError:
        return None


def manifest_file(name: str, version: str) -> str:
    """The name of a manifest's file."""
    return f"{check('name', name)}@{check('version', version)}.json"


def parse_manifest(value: t.Any, file: str | None = None) -> Manifest:
    """A manifest as it came from a file or another host, checked: known fields, right types, layers that are digests,
    each once.

    :param value: JSON text or its decoded value.
    :param file: the name of the file that it was read from, which must be the manifest's own.
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
    manifest = {key: value.get(key) for key in _FIELDS}
    for key, kind in _FIELDS.items():
        if not isinstance(manifest[key], kind) or isinstance(manifest[key], bool):
            raise bad(f"has no proper {key}")
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
