# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done for an image, and two readers of one image agree."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import ensure, raw_disk
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.catalogue import parse_entry
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

from .making import block, same_content, write_raw
from .test_reference import manifest

MIB = 2**20
BLANK = {"name": "scratch", "version": "1", "user": "root", "source": {"type": "blank", "size": "10 MiB"}}
WANTED = parse_entry(BLANK)
FOUND = manifest(name="scratch", version="1", recipe_digest=WANTED.recipe_digest)


@pytest.mark.parametrize(
    ("found", "complete", "same", "actions"),
    [
        (None, False, None, ["create"]),
        (None, False, FOUND, ["name"]),
        (FOUND, True, None, []),
        (FOUND, False, None, ["create"]),
        (FOUND, False, FOUND, ["name"]),
        ({**FOUND, "user": "admin"}, True, None, ["describe"]),
        ({**FOUND, "python": "/usr/bin/python3"}, True, None, ["describe"]),
    ],
)
def test_decide(found, complete, same, actions):
    assert ensure.decide(WANTED, found, complete, same) == actions


def test_a_version_never_changes():
    with pytest.raises(GridError) as caught:
        ensure.decide(WANTED, {**FOUND, "recipe_digest": "sha256:" + "1" * 64}, True, None)
    assert caught.value.code == "version_taken"


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"format": "qcow2", "virtual-size": MIB}, None),
        ({"format": "raw", "virtual-size": MIB}, "image_unreadable"),
        ({"format": "qcow2", "virtual-size": 2 * MIB}, "image_unreadable"),
        ({"format": "qcow2", "virtual-size": "x"}, "image_unreadable"),
        ({}, "image_unreadable"),
        ({"format": "qcow2", "virtual-size": MIB, "backing-filename": "/etc/passwd"}, "image_has_backing_file"),
    ],
)
def test_two_readers_agree(facts, code):
    if code is None:
        return raw_disk.agree(facts, "qcow2", MIB)
    with pytest.raises(GridError) as caught:
        raw_disk.agree(facts, "qcow2", MIB)
    assert caught.value.code == code
    return None


def test_refuse_corrupt():
    raw_disk.refuse_corrupt({"check-errors": 0, "leaks": 3})
    for found in ({"corruptions": 1}, {"check-errors": 2}):
        with pytest.raises(GridError) as caught:
            raw_disk.refuse_corrupt(found)
        assert caught.value.code == "image_damaged"


def test_a_made_image_is_what_the_file_has(tmp_path):
    depot, raw = (
        Depot(str(tmp_path / "d")),
        write_raw(tmp_path / "raw", 3 * MIB + 512, {2: block("a"), 48: block("odd")}),
    )
    made = ensure.ensure_present(
        depot, {"name": "x", "source": {"type": "file", "path": raw, "format": "raw"}}, Progress(None), False
    )
    same_content(raw, made["path"])
    assert made["size"] == os.stat(made["path"]).st_size and made["virtual_size"] == 3 * MIB + 512


def test_the_same_content_of_another_format_is_the_same_layer(tmp_path):
    raw, other = write_raw(tmp_path / "raw", MIB, {2: block("a")}), tmp_path / "other"
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, str(other)], check=True)
    sources = [{"type": "file", "path": raw, "format": "raw"}, {"type": "file", "path": str(other), "format": "qcow2"}]
    digests = {
        ensure.ensure_present(
            Depot(str(tmp_path / f"d{number}")), {"name": "x", "source": source}, Progress(None), False
        )["digest"]
        for number, source in enumerate(sources)
    }
    assert len(digests) == 1


def test_blank_twice_then_absent(tmp_path):
    depot, progress = Depot(str(tmp_path)), Progress(str(tmp_path / "progress"))
    planned = ensure.ensure_present(depot, BLANK, progress, check_mode=True)
    assert planned["actions"] == ["create"] and planned["digest"] is None and not (tmp_path / "images").exists()
    made = ensure.ensure_present(depot, BLANK, progress, check_mode=False)
    assert (
        made["actions"] == planned["actions"] and made["diff"] == planned["diff"] and made["virtual_size"] == 10 * MIB
    )
    again = ensure.ensure_present(depot, BLANK, progress, check_mode=False)
    assert (again["changed"], again["actions"], again["digest"]) == (False, [], made["digest"])
    named = ensure.ensure_present(depot, {**BLANK, "name": "other"}, progress, check_mode=False)
    assert named["actions"] == ["name"] and named["digest"] == made["digest"]
    described = ensure.ensure_present(depot, {**BLANK, "user": "admin"}, progress, check_mode=False)
    assert described["actions"] == ["describe"] and depot.manifest("scratch", "1")["user"] == "admin"
    assert ensure.ensure_absent(depot, {"name": "other"}, check_mode=False)["removed_layers"] == []
    assert ensure.ensure_absent(depot, {"name": "scratch"}, check_mode=True)["removed"] == ["scratch@1"]
    assert ensure.ensure_absent(depot, {"name": "scratch"}, check_mode=False)["removed_layers"] == [made["digest"]]
    assert ensure.ensure_absent(depot, {"name": "scratch"}, check_mode=False)["changed"] is False
    assert depot.read_layers() == []


@pytest.mark.parametrize("arguments", [["-b", "/etc/passwd", "-F", "raw"], ["-o", "data_file=outside.raw"]])
def test_images_that_qemu_img_made_to_depend_on_others(tmp_path, arguments):
    path = tmp_path / "bad.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *arguments, str(path), "10M"], check=True, cwd=tmp_path)
    with pytest.raises(GridError) as caught:
        ensure.ensure_present(
            Depot(str(tmp_path / "d")),
            {"name": "x", "source": {"type": "file", "path": str(path)}},
            Progress(None),
            check_mode=False,
        )
    assert caught.value.code in ("image_has_backing_file", "image_has_data_file")
    assert Depot(str(tmp_path / "d")).read_layers() == []


def test_a_cut_file_is_told(tmp_path):
    raw, path = tmp_path / "raw", tmp_path / "cut.qcow2"
    raw.write_bytes(b"x" * MIB)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)], check=True)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    with pytest.raises(GridError) as caught:
        raw_disk.import_file(str(path), "qcow2", str(tmp_path / "out"), Progress(None))
    assert caught.value.code == "image_damaged"


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_import_keeps_the_content(tmp_path, image_format):
    raw, source, target = tmp_path / "raw", tmp_path / "source", tmp_path / "out"
    raw.write_bytes(b"hello" * 20000 + bytes(MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, str(raw), str(source)], check=True)
    raw_disk.import_file(str(source), image_format, str(target), Progress(None))
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", str(raw), str(target)], check=True)


def test_progress_lines(tmp_path):
    progress = Progress(str(tmp_path / "p"), interval=60).about("tiny")
    progress.stage("packages")
    for done in (1, 2, 3):
        progress.bytes("download", done, 3)
    lines = (tmp_path / "p").read_text().splitlines()
    assert len(lines) == 3 and all('"name": "tiny"' in line for line in lines)
    Progress(None).stage("x")
    lost = Progress(str(tmp_path / "no/such/directory"))
    lost.stage("x")
    assert lost.path is None


def test_check_mode_knows_what_the_entries_before_would_make(tmp_path):
    depot = Depot(str(tmp_path))
    entries = [
        BLANK,
        {**BLANK, "name": "other"},
        BLANK,
        {**BLANK, "user": "admin"},
        {**BLANK, "version": "2", "source": {"type": "blank", "size": "2 MiB"}},
    ]
    assumed: list = []
    planned = [ensure.ensure_present(depot, entry, Progress(None), True, assumed) for entry in entries]
    done = [ensure.ensure_present(depot, entry, Progress(None), False) for entry in entries]
    assert [result["actions"] for result in planned] == [["create"], ["name"], [], ["describe"], ["create"]]
    assert [result["actions"] for result in done] == [result["actions"] for result in planned]
    assert [result["virtual_size"] for result in done] == [result["virtual_size"] for result in planned]
    again = [
        ensure.ensure_present(depot, entry, Progress(None), False)["actions"] for entry in entries[1:3] + entries[4:]
    ]
    assert again == [[], ["describe"], []]


def test_a_store_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(Depot, "prepare", refuse)
    with pytest.raises(GridError) as caught:
        ensure.ensure_present(Depot(str(tmp_path / "a/b")), BLANK, Progress(None), False)
    assert caught.value.code == "not_permitted"


def test_an_image_ordered_by_version_or_digest(tmp_path):
    depot = Depot(str(tmp_path))
    made = ensure.ensure_present(depot, BLANK, Progress(None), False)
    for entry in ({"name": "scratch", "version": 1}, {"name": "x", "digest": made["digest"]}):
        found = ensure.find_present(depot, entry)
        assert (found["digest"], found["reference"], found["changed"]) == (made["digest"], "scratch@1", False)
    for entry in ({"name": "scratch", "version": "2"}, {"name": "scratch", "digest": "sha256:\x1b[2J"}):
        with pytest.raises(GridError) as caught:
            ensure.find_present(depot, entry)
        assert caught.value.code == "image_unknown" and str(caught.value).isprintable()
