# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks one entry of the catalogue of images: what an image is called and what it is made from.

Pure, except that the size and time of a source that is a file are looked up.
"""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import checksum
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.address import shown
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.recipe import Recipe, parse_recipe
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.header import FORMATS, MAX_VIRTUAL_SIZE
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import recipe_digest, version_of
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, check_path, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size


class BlankSource(t.TypedDict):
    """An empty disk; ``size`` in bytes, whole MiB."""

    type: t.Literal["blank"]
    size: int


class FileSource(t.TypedDict):
    """A file of the image server; ``format`` is ``qcow2`` or ``raw``."""

    type: t.Literal["file"]
    path: str
    format: str


class UrlSource(t.TypedDict):
    """A file from the network; ``checksum`` as :class:`checksum.Checksum` writes itself."""

    type: t.Literal["url"]
    url: str
    checksum: str
    format: str


class PackagesSource(Recipe):
    """A recipe."""

    type: t.Literal["packages"]


Source = t.Union[BlankSource, FileSource, UrlSource, PackagesSource]

BUILDER = 1
"""To be raised when the builder makes something else from the same recipe. Images then get another version."""

MIB = 2**20
_FIELDS = ("name", "version", "user", "python", "source")


class Wanted(t.NamedTuple):
    """An image as it should be. ``recipe_digest`` is the digest of what it is made from."""

    name: str
    version: str
    user: str | None
    python: str | None
    source: Source
    recipe_digest: str


def parse_entry(entry: t.Mapping[str, object]) -> Wanted:
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


def stated_size(source: Source) -> int | None:
    """The size of the disk in bytes, where the source says it."""
    return source["size"] if source["type"] == "blank" or source["type"] == "packages" else None


def parse_source(source: object) -> Source:
    """Read an image's ``source``. :raises GridError: ``invalid_source``, ``invalid_recipe``, ``invalid_size``..."""
    kinds: dict[str, t.Callable[[t.Mapping[str, object]], Source]] = {
        "blank": _blank,
        "file": _file,
        "url": _url,
        "packages": lambda given: {"type": "packages", **parse_recipe(given)},
    }
    given = source if isinstance(source, t.Mapping) else {}
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise GridError(
            "invalid_source",
            f"the image's source has no known type: {shorten(kind)}",
            remedy=f"Give source.type, one of {', '.join(kinds)}",
        )
    rest = {key: value for key, value in given.items() if key != "type" and value is not None}
    return kinds[kind](rest)


def _fields(kind: str, given: t.Mapping[str, object], needed: t.Sequence[str], allowed: t.Sequence[str] = ()) -> None:
    missing = [key for key in needed if key not in given]
    unknown = sorted(str(key) for key in set(given) - {*needed, *allowed})
    if missing:
        remedy = f"A source of type {kind} takes {', '.join([*needed, *allowed])}"
        if missing == ["checksum"]:
            remedy = (
                "Give checksum: sha256:..., as the image's publisher tells it; "
                "nothing from the network is used without one"
            )
        raise GridError("invalid_source", f"{missing[0]} of the image's source is missing", remedy=remedy)
    if unknown:
        raise GridError(
            "invalid_source",
            f"{shorten(unknown[0])} is no field of a source of type {kind}",
            remedy=f"It takes {', '.join([*needed, *allowed])}",
        )


def _format(given: t.Mapping[str, object]) -> str:
    value = given.get("format", "qcow2")
    if not isinstance(value, str) or value not in FORMATS:
        raise GridError(
            "invalid_source",
            f"format {shorten(value)} is not known",
            remedy=f"Give one of {', '.join(FORMATS)}; convert other formats first",
        )
    return value


def _blank(given: t.Mapping[str, object]) -> BlankSource:
    _fields("blank", given, ["size"])
    size = parse_size(given["size"], "size of the image", minimum=MIB, maximum=MAX_VIRTUAL_SIZE)
    return {"type": "blank", "size": -(-size // MIB) * MIB}


def _file(given: t.Mapping[str, object]) -> FileSource:
    _fields("file", given, ["path"], ["format"])
    return {"type": "file", "path": check_path("source", given["path"]), "format": _format(given)}


def _url(given: t.Mapping[str, object]) -> UrlSource:
    _fields("url", given, ["url", "checksum"], ["format"])
    return {
        "type": "url",
        "url": _address(given["url"]),
        "checksum": str(checksum.parse(given["checksum"])),
        "format": _format(given),
    }


def _address(value: object) -> str:
    try:
        return check("url", value)
    except GridError:
        # An address that was mistyped may have a password all the same.
        raise GridError(
            "invalid_url",
            f"{shown(value) if isinstance(value, str) else shorten(value)} is not a valid url",
            remedy="Give an https:// or http:// address",
        ) from None


def _identity(source: Source) -> t.Mapping[str, object]:
    """What tells two sources apart: of packages also the builder, of a file its length and time of change."""
    if source["type"] == "packages":
        return {**source, "builder": BUILDER}
    if source["type"] == "file":
        facts = file_facts(source["path"])
        return {**source, "length": facts.st_size, "changed": facts.st_mtime_ns}
    if source["type"] == "url":
        # The checksum identifies it, whichever mirror it comes from.
        return {"type": source["type"], "checksum": source["checksum"], "format": source["format"]}
    return source


def file_facts(path: str) -> os.stat_result:
    """The status of a source's file. :raises GridError: ``source_missing`` where it is not a file that can be read."""
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
