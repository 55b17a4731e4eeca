# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many files at once: made, brought back, left alone, removed; check mode says the same and does nothing."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils import _files


def entries(place):
    """A file in a directory in a directory, told in the wrong order, and one that goes."""
    return [
        {"path": f"{place}/a/link", "state": "link", "content": "b/unit", "mode": "0644"},
        {"path": f"{place}/a/b/unit", "state": "file", "content": "one\ntwo", "mode": "0640"},
        {"path": f"{place}/old", "state": "absent", "content": None, "mode": "0644"},
        {"path": f"{place}/a/b", "state": "directory", "content": None, "mode": "0755"},
        {"path": f"{place}/a", "state": "directory", "content": None, "mode": "0711"},
    ]


def bring(place, check_mode=False):
    """As whoever runs the tests."""
    return _files.bring(entries(place), check_mode=check_mode, owner=os.getuid())


def tree(place):
    """Every path with its mode and content."""
    found = {}
    for path in sorted(place.rglob("*")):
        found[str(path.relative_to(place))] = (
            oct(stat.S_IMODE(path.lstat().st_mode)),
            path.read_text() if path.is_file() else None,
        )
    return found


MADE = {
    "a": ("0o711", None),
    "a/b": ("0o755", None),
    "a/b/unit": ("0o640", "one\ntwo"),
    "a/link": ("0o777", "one\ntwo"),
}


def test_check_mode_names_what_a_run_does_and_a_second_run_does_nothing(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("x")
    before = tree(tmp_path)
    foretold = bring(tmp_path, True)
    assert tree(tmp_path) == before
    assert bring(tmp_path) == foretold and foretold[0] == [
        f"{tmp_path}/{name}" for name in ("a", "a/b", "a/b/unit", "a/link", "old")
    ]
    assert tree(tmp_path) == MADE
    assert bring(tmp_path) == bring(tmp_path, True) == ([], [])


@pytest.mark.parametrize(
    ("spoil", "before"),
    [
        (lambda path: path.write_text("one\nthree"), "one\nthree"),
        (lambda path: path.chmod(0o600), "mode 0600"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), ""),
    ],
)
def test_only_what_differs_is_brought_back(tmp_path, spoil, before):
    bring(tmp_path)
    spoil(tmp_path / "a/b/unit")
    hostname = os.path.exists("/etc/hostname") and os.lstat("/etc/hostname").st_mtime_ns
    paths, (row,) = bring(tmp_path)
    assert paths == [f"{tmp_path}/a/b/unit"] and row["before"].startswith(before) and row["before"] != row["after"]
    assert tree(tmp_path) == MADE and not (tmp_path / "a/b/unit").is_symlink()
    assert (os.path.exists("/etc/hostname") and os.lstat("/etc/hostname").st_mtime_ns) == hostname


@pytest.mark.parametrize(
    "spoil", [lambda path: path.symlink_to("elsewhere"), lambda path: path.write_text("x"), lambda path: None]
)
def test_a_link_that_leads_elsewhere_or_is_none_is_made_anew(tmp_path, spoil):
    bring(tmp_path)
    (tmp_path / "a/link").unlink()
    spoil(tmp_path / "a/link")
    assert bring(tmp_path, True) == bring(tmp_path) and os.readlink(tmp_path / "a/link") == "b/unit"
    assert bring(tmp_path)[0] == [] and sorted(os.listdir(tmp_path / "a")) == ["b", "link"]


def test_a_directory_in_a_files_place_is_told_and_nothing_half_written_stays(tmp_path):
    (tmp_path / "a/b/unit").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="a/b/unit"):
        bring(tmp_path)
    assert sorted(os.listdir(tmp_path / "a/b")) == ["unit"]


def test_what_can_not_be_written_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    bring(tmp_path)
    (tmp_path / "a/b/unit").write_text("old")

    def refuse(*dummy):
        raise PermissionError("refused")

    monkeypatch.setattr(_files.os, "rename", refuse)
    with pytest.raises(PermissionError):
        bring(tmp_path)
    assert os.listdir(tmp_path / "a/b") == ["unit"] and (tmp_path / "a/b/unit").read_text() == "old"


def test_files_that_are_not_named_go_from_an_exclusive_directory(tmp_path):
    (tmp_path / "code" / "kept").mkdir(parents=True)
    for name in ("old.py", "new.py", "kept/deep.py"):
        (tmp_path / "code" / name).write_text("x")
    directory = {"path": f"{tmp_path}/code", "state": "directory", "content": None, "mode": "0755", "exclusive": True}
    wanted = {"path": f"{tmp_path}/code/new.py", "state": "file", "content": "x", "mode": "0644"}

    def exclusively(check_mode):
        return _files.bring([directory, wanted], check_mode=check_mode, owner=os.getuid())[0]

    assert exclusively(True)[-1] == f"{tmp_path}/code/old.py" and (tmp_path / "code/old.py").exists()
    assert exclusively(False)[-1] == f"{tmp_path}/code/old.py" and exclusively(False) == []
    assert sorted(tree(tmp_path / "code")) == ["kept", "kept/deep.py", "new.py"]
    # One that isn't there yet is made.
    there = {**directory, "path": f"{tmp_path}/more"}
    assert _files.bring([there], check_mode=True, owner=os.getuid())[0] == [f"{tmp_path}/more"]
