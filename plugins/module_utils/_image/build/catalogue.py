# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One entry of the catalogue: what an image is made of and what it is called, checked and canonical (pure but for one stat)."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.recipe import parse_recipe
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.header import FORMATS, MAX_VIRTUAL_SIZE
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import recipe_digest, version_of
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, check_path, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

Source = t.Dict[str, t.Any]

BUILDER = 1
"""Raised when the builder makes something else of the same recipe, so that images are built anew under another version."""

MIB = 2**20
_FIELDS = ("name", "version", "user", "python", "source")


class Wanted(t.NamedTuple):
    """An image as it should be."""

    name: str
    version: str
    user: str | None
    python: str | None
    source: Source
    recipe_digest: str


def parse_entry(entry: t.Mapping[str, t.Any]) -> Wanted:
    """Read one item of the module's ``images``.

    :raises GridError: ``invalid_image`` for wrong fields; ``invalid_name``, ``invalid_size``... for wrong values;
        ``source_missing`` where the source's file is not there.
    """
    unknown = sorted(str(key) for key in set(entry) - set(_FIELDS))
    if unknown:
        raise GridError(
            "invalid_image",
            f"{shorten(unknown[0])} is no field of an image",
            remedy=f"The fields of an image are: {', '.join(_FIELDS)}",
        )
    name = check("name", entry.get("name"))
    source = parse_source(entry.get("source"))
    digest = recipe_digest(_identity(source))
    version, user, python = entry.get("version"), entry.get("user"), entry.get("python")
    return Wanted(
        name=name,
        version=version_of(digest) if version is None else check("version", str(version)),
        user=None if user is None else check("user", user),
        python=None if python is None else check_path("python", python),
        source=source,
        recipe_digest=digest,
    )


def parse_source(source: t.Any) -> Source:
    """Read an image's ``source``; every field of its type is there, sizes in bytes."""
    kinds: dict[str, t.Callable[[dict[str, t.Any]], Source]] = {
        "blank": _blank,
        "file": _file,
        "url": _url,
        "packages": parse_recipe,
    }
    kind = source.get("type") if isinstance(source, t.Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise GridError(
            "invalid_source",
            f"the image's source has no known type: {shorten(kind)}",
            remedy=f"Give source.type, one of {', '.join(kinds)}",
        )
    rest = {key: value for key, value in source.items() if key != "type" and value is not None}
    return {"type": kind, **kinds[kind](rest)}


def _fields(kind: str, given: t.Mapping[str, t.Any], needed: t.Sequence[str], allowed: t.Sequence[str] = ()) -> None:
    missing = [key for key in needed if key not in given]
    unknown = sorted(str(key) for key in set(given) - {*needed, *allowed})
    if missing:
        remedy = f"A source of type {kind} takes {', '.join([*needed, *allowed])}"
        if missing == ["checksum"]:
            remedy = "Give checksum: sha256:..., as the image's publisher tells it; nothing from the network is used without one"
        raise GridError("invalid_source", f"{missing[0]} of the image's source is missing", remedy=remedy)
    if unknown:
        raise GridError(
            "invalid_source",
            f"{shorten(unknown[0])} is no field of a source of type {kind}",
            remedy=f"It takes {', '.join([*needed, *allowed])}",
        )


def _format(given: t.Mapping[str, t.Any]) -> str:
    value = given.get("format", "qcow2")
    if value not in FORMATS:
        raise GridError(
            "invalid_source",
            f"format {shorten(value)} is not known",
            remedy=f"Give one of {', '.join(FORMATS)}; convert other formats first",
        )
    return t.cast(str, value)


def _blank(given: dict[str, t.Any]) -> Source:
    _fields("blank", given, ["size"])
    size = parse_size(given["size"], "size of the image", minimum=MIB, maximum=MAX_VIRTUAL_SIZE)
    return {"size": -(-size // MIB) * MIB}


def _file(given: dict[str, t.Any]) -> Source:
    _fields("file", given, ["path"], ["format"])
    return {"path": check_path("source", given["path"]), "format": _format(given)}


def _url(given: dict[str, t.Any]) -> Source:
    _fields("url", given, ["url", "checksum"], ["format"])
    return {"url": check("url", given["url"]), "checksum": check("digest", given["checksum"]), "format": _format(given)}


def _identity(source: Source) -> dict[str, t.Any]:
    """What makes two sources the same: for packages also the builder, for a file its length and time of change."""
    if source["type"] == "packages":
        return {**source, "builder": BUILDER}
    if source["type"] == "file":
        facts = file_facts(source["path"])
        return {**source, "length": facts.st_size, "changed": facts.st_mtime_ns}
    if source["type"] == "url":
        # The checksum says what it is; the same from another mirror is the same
        return {key: source[key] for key in ("type", "checksum", "format")}
    return source


def file_facts(path: str) -> os.stat_result:
    """:raises GridError: ``source_missing`` where ``path`` is not a file that can be read."""
    try:
        facts = os.stat(path)
    except OSError as exc:
        raise GridError(
            "source_missing",
            f"the image's source {path} can't be read: {exc.strerror}",
            remedy="Put the file on the image server, or correct the path",
        ) from exc
    if not stat.S_ISREG(facts.st_mode):
        raise GridError(
            "source_missing",
            f"the image's source {path} is not a file",
            remedy="Give the path of an image file on the image server",
        )
    return facts
