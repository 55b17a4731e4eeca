# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a recipe, the description of an image made from packages, and brings it into one canonical form (pure).

A recipe is trusted: its commands run as root in the image's tree while it is built. It is checked so that a mistake is
reported before minutes of work, and so that no value can be taken for an option or a shell command.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, check_path, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

MIB = 2**20


class RecipeFile(t.TypedDict):
    """A file that the recipe writes into the tree; ``mode`` is its permissions as a number."""

    path: str
    content: str
    mode: int


class Recipe(t.TypedDict):
    """A checked recipe. ``size`` is the disk's in bytes, whole MiB; ``keep`` has patterns of :func:`kept`; ``commands``
    are argument lists."""

    suite: str
    variant: str
    size: int
    packages: t.List[str]
    mirrors: t.List[str]
    components: t.List[str]
    keep: t.List[str]
    files: t.List[RecipeFile]
    commands: t.List[t.List[str]]
    initramfs: str
    modules: t.List[str]
    cmdline: str


SIZE_RANGE = (32 * MIB, 2 * 2**40)  # an MBR counts sectors in 32 bits

VARIANTS = (
    "extract",
    "custom",
    "essential",
    "apt",
    "required",
    "minbase",
    "buildd",
    "important",
    "debootstrap",
    "standard",
)
INITRAMFS = ("distribution", "minimal")

FIELDS: dict[str, t.Union[str, t.List[str], None]] = {
    "suite": None,
    "variant": "minbase",
    "size": None,
    "packages": None,
    "mirrors": [],
    "components": ["main"],
    "keep": [],
    "files": [],
    "commands": [],
    "initramfs": "distribution",
    "modules": [],
    "cmdline": "rw console=tty1 console=ttyS0",
}
"""The fields of a recipe and their defaults; ``None`` for fields that are required."""

# Not on the disk, or links to such a place: a file put there would be lost, or end up somewhere else.
_VOLATILE = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/run", "/var/lock")
_MODE = re.compile(r"0?[0-7]{3}|0?[0-7]{4}", re.ASCII)


def parse_recipe(given: t.Mapping[str, object]) -> Recipe:
    """Check a recipe and fill in the defaults.

    :raises GridError: ``invalid_recipe``, ``invalid_size``, ``invalid_path``, ``invalid_package``...
    """
    unknown = sorted(set(given) - set(FIELDS))
    missing = sorted(key for key, default in FIELDS.items() if default is None and given.get(key) is None)
    if unknown or missing:
        what = f"unknown field {shorten(unknown[0])}" if unknown else f"{missing[0]} is missing"
        raise GridError(
            "invalid_recipe", f"in the recipe, {what}", remedy=f"The fields of a recipe are: {', '.join(FIELDS)}"
        )
    recipe = {key: default if given.get(key) is None else given[key] for key, default in FIELDS.items()}
    lists = {
        key: _list(key, recipe[key])
        for key, default in FIELDS.items()
        if isinstance(default, list) or key == "packages"
    }
    size = parse_size(recipe["size"], "size of the image", minimum=SIZE_RANGE[0], maximum=SIZE_RANGE[1])
    return {
        "suite": check("suite", recipe["suite"]),
        "variant": _choice("variant", recipe["variant"], VARIANTS),
        "size": -(-size // MIB) * MIB,
        "packages": [check("package", name) for name in lists["packages"]],
        "mirrors": [check("mirror", mirror) for mirror in lists["mirrors"]],
        "components": [check("module", component) for component in lists["components"]],
        "keep": [_check_pattern(pattern) for pattern in lists["keep"]],
        "files": [_parse_file(entry) for entry in lists["files"]],
        "commands": [_parse_command(argv) for argv in lists["commands"]],
        "initramfs": _choice("initramfs", recipe["initramfs"], INITRAMFS),
        "modules": [check("module", name) for name in lists["modules"]],
        "cmdline": check("cmdline", recipe["cmdline"]),
    }


def _list(key: str, value: object) -> list[object]:
    if not isinstance(value, list) or len(value) > 2000:
        raise GridError(
            "invalid_recipe",
            f"{key} of the recipe is not a list of at most 2000 items",
            remedy=f"Write {key} as a YAML list",
        )
    return value


def _choice(what: str, value: object, choices: t.Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise GridError(
            "invalid_recipe", f"{what} {shorten(value)} is not known", remedy=f"Give one of {', '.join(choices)}"
        )
    return value


def _check_pattern(value: object) -> str:
    # Stars stand for ordinary characters of a path, so it is checked with such characters in their place.
    check_path("keep", value.replace("*", "x") if isinstance(value, str) else value)
    return t.cast(str, value)


def _parse_file(entry: object) -> RecipeFile:
    if not isinstance(entry, t.Mapping) or not {"path", "content"} <= set(entry) <= {"path", "content", "mode"}:
        raise GridError(
            "invalid_recipe",
            f"{shorten(entry)} is not a file of a recipe",
            remedy="Give each file as {path, content, mode}",
        )
    path = check_path("file", entry["path"])
    if any(path == place or path.startswith(place + "/") for place in _VOLATILE):
        raise GridError(
            "invalid_path",
            f"file {shorten(path)} would not be kept in the image",
            remedy="Put it in a directory that lies on the disk",
        )
    content, mode = entry["content"], entry.get("mode", "0644")
    if not isinstance(content, str) or len(content) > MIB:
        raise GridError(
            "invalid_recipe",
            f"the content of file {path} is not text of at most 1 MiB",
            remedy="Give text; put larger files into a package",
        )
    # YAML reads 0644 without quotes as the number 420.
    if not isinstance(mode, str) or not _MODE.fullmatch(mode):
        raise GridError(
            "invalid_recipe",
            f"mode {shorten(mode)} of file {path} is not an octal file mode",
            remedy='Write it in quotes, for example "0755"',
        )
    return {"path": path, "content": content, "mode": int(mode, 8)}


def _parse_command(argv: object) -> list[str]:
    if isinstance(argv, list) and argv and all(isinstance(word, str) and "\0" not in word for word in argv):
        if argv[0].strip() and not argv[0].startswith("-"):
            return list(argv)
    raise GridError(
        "invalid_recipe",
        f"{shorten(argv)} is not a command",
        remedy="Give each command as a list of words, for example [systemctl, mask, apt-daily.timer]",
    )


def kept(path: str, patterns: t.Sequence[str]) -> bool:
    """Whether a recipe's ``keep`` keeps ``path``: a pattern matches the path itself or a directory above it.

    ``*`` matches any characters except ``/``, ``**`` any characters at all.
    """
    return any(_compiled(pattern).match(path) for pattern in patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern not in _PATTERNS:
        parts = re.split(r"(\*+)", pattern)
        text = "".join({"*": "[^/]*"}.get(part, ".*") if part.startswith("*") else re.escape(part) for part in parts)
        _PATTERNS[pattern] = re.compile(text + r"(?:/.*)?\Z", re.DOTALL)
    return _PATTERNS[pattern]


_PATTERNS: dict[str, re.Pattern[str]] = {}


def bootstrap_argv(recipe: Recipe, target: str) -> list[str]:
    """The argument list of the program that makes the tree of ``recipe`` in the directory ``target``."""
    return [
        "mmdebstrap",
        f"--variant={recipe['variant']}",
        f"--components={','.join(recipe['components'])}",
        *([f"--include={','.join(recipe['packages'])}"] if recipe["packages"] else []),
        "--format=directory",
        '--aptopt=Acquire::Retries "3"',
        '--aptopt=Acquire::http::Timeout "30"',
        "--",
        recipe["suite"],
        target,
        *recipe["mirrors"],
    ]
