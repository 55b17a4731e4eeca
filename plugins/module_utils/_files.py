# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write, link and remove many files in one call, each atomically (the module ``files``), and remove directory trees."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError


class Entry(t.TypedDict):
    """A file, directory or link as it should be.

    ``state``: ``file``, ``directory``, ``link`` or ``absent``. ``content``: a file's text, or a link's target; ``None``
    for the others. ``mode``: permissions as four octal digits. ``exclusive``: of a directory, whether files in it that
    have no entry go.
    """

    path: str
    state: str
    content: str
    mode: str
    exclusive: bool


def order(entries: t.Sequence[Entry]) -> list[Entry]:
    """The order of work: directories, the outer ones first, then files, then links, then removals (pure)."""
    rank = {"directory": 0, "file": 1, "link": 2, "absent": 3}
    return sorted(
        entries, key=lambda entry: (rank[entry["state"]], entry["path"] if entry["state"] == "directory" else "")
    )


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _attributes_differ(found: os.stat_result, entry: Entry, owner: int) -> bool:
    return stat.S_IMODE(found.st_mode) != int(entry["mode"], 8) or (found.st_uid, found.st_gid) != (owner, owner)


def _row(entry: Entry, before: str, after: str) -> dict[str, str]:
    """One entry of the module's ``diff``."""
    return {"before_header": entry["path"], "after_header": entry["path"], "before": before, "after": after}


def _directory(entry: Entry, owner: int, check_mode: bool) -> dict[str, str] | None:
    path, found = entry["path"], _status(entry["path"])
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is there and no directory")
    if found is not None and not _attributes_differ(found, entry, owner):
        return None
    if not check_mode:
        if found is None:
            os.makedirs(path)
        os.chmod(path, int(entry["mode"], 8))
        os.chown(path, owner, owner)
    before = (
        "absent\n"
        if found is None
        else f"directory, mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}:{found.st_gid}\n"
    )
    return _row(entry, before, f"directory, mode {entry['mode']}, owner {owner}:{owner}\n")


def _file(entry: Entry, owner: int, check_mode: bool) -> dict[str, str] | None:
    path, found = entry["path"], _status(entry["path"])
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a directory")
    content = entry["content"].encode("utf-8")
    plain, before = found is not None and stat.S_ISREG(found.st_mode), b""
    if plain:
        with open(path, "rb") as file:
            before = file.read()
    same = plain and before == content
    if same and not _attributes_differ(t.cast(os.stat_result, found), entry, owner):
        return None
    if not check_mode:
        _write(path, content, int(entry["mode"], 8), owner)
    if same:
        was = t.cast(os.stat_result, found)
        return _row(
            entry,
            f"mode {stat.S_IMODE(was.st_mode):04o}, owner {was.st_uid}:{was.st_gid}\n",
            f"mode {entry['mode']}, owner {owner}:{owner}\n",
        )
    return _row(entry, before.decode("utf-8", "replace"), entry["content"])


def _write(path: str, content: bytes, mode: int, owner: int) -> None:
    descriptor, new = tempfile.mkstemp(prefix=".", suffix=".new", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            # The content must be on the disk before the file has its final name.
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, mode)
        os.chown(new, owner, owner)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise


def _link(entry: Entry, owner: int, check_mode: bool) -> dict[str, str] | None:
    path, found = entry["path"], _status(entry["path"])
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a directory")
    before = "absent" if found is None else f"link to {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else "file"
    after = f"link to {entry['content']}"
    if before == after:
        return None
    if not check_mode:
        # Renamed into place, as a file is: there is always the old one or the new one.
        new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(entry["content"], new)
        os.lchown(new, owner, owner)
        os.rename(new, path)
    return _row(entry, before + "\n", after + "\n")


def _absent(entry: Entry, check_mode: bool) -> dict[str, str] | None:
    path, found = entry["path"], _status(entry["path"])
    if found is None:
        return None
    if not check_mode:
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return _row(entry, "there\n", "absent\n")


def _strays(entries: t.Sequence[Entry]) -> list[Entry]:
    """What goes because it is in an exclusive directory and not among the entries; directories in it stay."""
    named = {entry["path"] for entry in entries}
    return [
        {"path": item.path, "state": "absent", "content": "", "mode": "0644", "exclusive": False}
        for entry in entries
        if entry["state"] == "directory" and entry.get("exclusive") and os.path.isdir(entry["path"])
        for item in sorted(os.scandir(entry["path"]), key=lambda item: item.name)
        if item.path not in named and not item.is_dir(follow_symlinks=False)
    ]


def bring(entries: t.Sequence[Entry], *, check_mode: bool, owner: int = 0) -> tuple[list[str], list[dict[str, str]]]:
    """Make everything as its entry says.

    :param owner: numeric user and group that everything belongs to.
    :returns: the paths that changed, and one ``diff`` entry for each.
    :raises OSError: with the path in it. What comes before it is done; a second call continues.
    """
    changed, rows = [], []
    for entry in order([*entries, *_strays(entries)]):
        if entry["state"] == "absent":
            row = _absent(entry, check_mode)
        else:
            row = {"directory": _directory, "file": _file, "link": _link}[entry["state"]](entry, owner, check_mode)
        if row is not None:
            changed.append(entry["path"])
            rows.append(row)
    return changed, rows


def remove_tree(tree: str) -> None:
    """Remove a directory tree. A link, or nothing, is left alone.

    :raises GridError: ``leftover_mounted`` where something is mounted in the tree: its files would be lost.
    """
    if not os.path.isdir(tree) or os.path.islink(tree):
        return
    for top, dirs, dummy in os.walk(tree):
        for name in dirs:
            full = os.path.join(top, name)
            # os.walk doesn't follow links, but ismount does
            if not os.path.islink(full) and os.path.ismount(full):
                raise GridError(
                    "leftover_mounted", f"something is mounted on {full}", remedy="Unmount it, then run the same again"
                )
    for attempt in range(10):
        try:
            return shutil.rmtree(tree)
        except OSError:
            # A program of a run that was killed may still write for a moment until the kernel has ended it
            if attempt == 9:
                raise
            time.sleep(0.2)
    return None


def clear(directory: str, keep: str, before: float | None = None) -> bool:
    """Remove everything in a directory except files whose names end in ``keep``.

    :param before: remove those too that are older than this time (seconds since 1970).
    :returns: whether anything was removed.
    """
    removed = False
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return False
    for name in names:
        path = os.path.join(directory, name)
        if name.endswith(keep) and (before is None or os.lstat(path).st_mtime >= before):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            os.unlink(path)
        removed = True
    return removed
