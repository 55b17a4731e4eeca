# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of images: captured from disks, flattened, pruned."""

from __future__ import annotations

import contextlib
import os

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import add_layer
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import Content, raw_runs
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, ZERO, Index
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions import capture
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.flatten import ensure_flattened
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.prune import ensure_pruned
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

from .making import MIB, block, put, same_content, write_raw
from .test_depot import hold_as_a_sender_does
from .test_reference import manifest

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"
OTHER = "0b8ec5a5-2a6d-4b5a-8f3a-4f5a3f3f7a10"
A, B = b"a" * 32, b"b" * 32
PARENT = "sha256:" + "5f" * 32


@pytest.fixture(name="depot")
def _depot(tmp_path):
    depot = Depot(str(tmp_path / "depot"))
    depot.prepare()
    return depot


class RawDisk(capture.Source):
    """A raw disk as a machine's disk; a ``blind`` one can't be read beforehand, like that of a running machine."""

    def __init__(self, path, below, blind=False, machine=UUID):
        super().__init__(machine, below, "debian", "/usr/bin/python3", "crash" if blind else "stopped")
        self.path, self.blind, self.moved, self.opened = str(path), blind, False, 0

    @contextlib.contextmanager
    def open(self, work):
        self.opened += 1
        if work is None and self.blind:
            yield None
            return
        with open(self.path, "rb") as stream:
            yield capture.Reading(stream.fileno(), raw_runs(stream.fileno()), os.path.getsize(self.path), True)

    def settle(self):
        if self.moved:
            raise GridError("image_changed", "it moved")


def captured(depot, source, check=False, **entry):
    wanted = capture.parse_capture({"name": "web", "machine": UUID, **entry})
    return capture.ensure_captured(depot, wanted, source, Progress(None), check)


@pytest.mark.parametrize(
    ("content", "whole", "size", "blocks"),
    [
        (Content({}, {}, set()), False, 4, None),
        (Content({0: A, 2: A}, {}, {1, 3}), True, 4, None),
        (Content({0: A}, {}, {1, 3}), False, 4, None),
        (Content({0: B}, {}, set()), False, 4, {0: B}),
        (Content({0: B}, {}, set()), True, 4, {0: B, 2: ZERO}),
        (Content({1: A}, {}, {2}), False, 4, {1: A, 2: ZERO}),
        (Content({}, {}, set()), False, 6, {}),
        (Content({5: A}, {}, {4}), False, 6, {5: A}),
    ],
)
def test_next_layer(content, whole, size, blocks):
    """What lies below has A in the blocks 0 and 2 of 4."""
    below = {0: A, 2: A}
    index = add_layer.next_layer(content, whole, Index(4 * BLOCK, None, below), below, size * BLOCK, PARENT)
    assert (index and index.blocks) == blocks
    assert index is None or (index.parent, index.virtual_size) == (PARENT, size * BLOCK)


WANTED = capture.Wanted("web", None, UUID, None, None)
MINE = manifest(name="web", version="2", layers=[PARENT], recipe_digest=capture.capture_recipe(UUID))
NOT_MINE = {**MINE, "recipe_digest": capture.capture_recipe(OTHER)}


@pytest.mark.parametrize(
    ("wanted", "manifests", "digest", "there", "actions"),
    [
        ({}, [], None, False, ["capture"]),
        ({}, [], PARENT, False, ["capture"]),
        ({}, [], PARENT, True, ["name"]),
        ({}, [MINE], PARENT, True, []),
        ({}, [NOT_MINE], PARENT, True, []),
        ({}, [MINE], "sha256:" + "0" * 64, False, ["capture"]),
        ({"name": "other"}, [MINE], PARENT, True, ["name"]),
        ({"version": "2"}, [MINE], "sha256:" + "0" * 64, False, []),
        ({"version": "2"}, [NOT_MINE], PARENT, True, []),
        ({"version": "3"}, [MINE], PARENT, True, ["name"]),
        ({"user": "root"}, [MINE], PARENT, True, []),
        ({"user": "admin"}, [MINE], PARENT, True, ["describe"]),
    ],
)
def test_decide(wanted, manifests, digest, there, actions):
    assert capture.decide(WANTED._replace(**wanted), UUID, manifests, digest, there)[0] == actions


def test_a_version_is_not_captured_over_another():
    for digest in (None, "sha256:" + "0" * 64):
        with pytest.raises(GridError) as caught:
            capture.decide(WANTED._replace(version="2"), UUID, [NOT_MINE], digest, False)
        assert caught.value.code == "version_taken"


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"machine": None}, "invalid_image"),
        ({"name": None}, "invalid_image"),
        ({"source": {}}, "invalid_image"),
        ({"name": "../x"}, "invalid_name"),
        ({"version": "../x"}, "invalid_version"),
        ({"user": "Not a user"}, "invalid_user"),
        ({"python": "python3"}, "invalid_path"),
    ],
)
def test_entries(entry, code):
    with pytest.raises(GridError) as caught:
        capture.parse_capture({"name": "web", "machine": UUID, **entry})
    assert caught.value.code == code


def test_capture_repeat_change_capture(depot, tmp_path):
    base = put(depot, {0: block("a"), 1: block("b")})
    disk = RawDisk(write_raw(tmp_path / "disk", MIB, {0: block("a"), 2: block("c")}), base["layers"][0])
    said = captured(depot, disk, check=True)
    assert len(depot.read_layers()) == 1 and said["actions"] == ["capture"]
    done = captured(depot, disk)
    assert {**said, "size": 0} == {**done, "size": 0} and done["version"] == done["digest"][7:19]
    assert (done["user"], done["python"], done["consistent"]) == ("debian", "/usr/bin/python3", "stopped")
    assert list(depot.index(done["digest"]).blocks) == [1, 2] and done["layers"] == [*base["layers"], done["digest"]]
    same_content(disk.path, done["path"])
    assert (
        done["size"]
        == sum(layer["size"] for layer in depot.read_layers())
        == depot.manifest("web", done["version"])["size"]
    )
    for check in (True, False):
        again = captured(depot, disk, check)
        assert (again["changed"], again["reference"], again["digest"]) == (False, done["reference"], done["digest"])
    # the same content on the new layer, as it lies after a roll back
    on_top = RawDisk(disk.path, done["digest"])
    assert captured(depot, on_top)["reference"] == done["reference"]
    write_raw(disk.path, MIB, {0: block("x")})
    changed = captured(depot, on_top, version="next")
    assert changed["layers"] == [*done["layers"], changed["digest"]] and changed["reference"] == "web@next"
    same_content(disk.path, changed["path"])
    assert os.listdir(depot.staging) == []


def test_the_same_content_has_one_layer_wherever_it_is_captured(tmp_path):
    digests = set()
    for name in "ab":
        depot = Depot(str(tmp_path / name))
        base = put(depot)
        disk = write_raw(tmp_path / f"disk-{name}", MIB, {0: block("layer"), 3: block("new")})
        digests.add(captured(depot, RawDisk(disk, base["layers"][0], blind=name == "b"))["digest"])
    assert len(digests) == 1


def test_an_unchanged_disk_makes_no_layer(depot, tmp_path):
    base = put(depot, {0: block("a")}, name="web")
    disk = RawDisk(write_raw(tmp_path / "disk", MIB, {0: block("a")}), base["layers"][0])
    unchanged = captured(depot, disk)
    assert (unchanged["changed"], unchanged["reference"]) == (False, "web@1")
    named = captured(depot, disk, name="copy", version="1")
    assert named["actions"] == ["name"] and named["digest"] == base["layers"][0] and len(depot.read_layers()) == 1


def test_a_disk_that_only_grew(depot, tmp_path):
    base = put(depot, {0: block("a")})
    disk = RawDisk(write_raw(tmp_path / "disk", 2 * MIB, {0: block("a")}), base["layers"][0])
    done = captured(depot, disk)
    assert done["virtual_size"] == 2 * MIB and depot.index(done["digest"]).blocks == {}
    same_content(disk.path, done["path"])


def test_a_running_machine_is_not_known_beforehand(depot, tmp_path):
    base = put(depot)
    disk = RawDisk(write_raw(tmp_path / "disk", MIB, {0: block("x")}), base["layers"][0], blind=True)
    said = captured(depot, disk, check=True)
    assert (said["actions"], said["digest"], said["version"], said["reference"]) == (["capture"], None, None, None)
    assert captured(depot, disk, check=True, version="7")["reference"] == "web@7"
    done = captured(depot, disk, version="7")
    assert done["consistent"] == "crash" and done["actions"] == ["capture"]


def test_a_version_that_is_there_is_not_read_again(depot, tmp_path):
    """However the running machine went on since: so a play can be run again."""
    base = put(depot)
    disk = RawDisk(write_raw(tmp_path / "disk", MIB, {0: block("x")}), base["layers"][0], blind=True)
    captured(depot, disk, version="7")
    write_raw(disk.path, MIB, {0: block("y")})
    opened = disk.opened
    assert captured(depot, disk, version="7")["changed"] is False and disk.opened == opened
    described = captured(depot, disk, version="7", user="admin")
    assert described["actions"] == ["describe"] and depot.manifest("web", "7")["user"] == "admin"
    with pytest.raises(GridError) as caught:
        captured(depot, RawDisk(disk.path, base["layers"][0], machine=OTHER), version="7")
    assert caught.value.code == "version_taken"


def test_a_disk_that_moved_while_it_was_read_is_not_kept(depot, tmp_path):
    base = put(depot)
    disk = RawDisk(write_raw(tmp_path / "disk", MIB, {0: block("x")}), base["layers"][0])
    disk.moved = True
    with pytest.raises(GridError, match="moved"):
        captured(depot, disk)
    assert len(depot.read_layers()) == 1 and len(depot.read_manifests()[0]) == 1 and os.listdir(depot.staging) == []


def test_a_disk_on_a_layer_that_is_not_here(depot, tmp_path):
    base = put(depot)
    second = put(depot, {0: block("b")}, below=base, version="2")
    os.unlink(depot.layer_path(base["layers"][0]))
    for check in (True, False):
        with pytest.raises(GridError) as caught:
            captured(depot, RawDisk(write_raw(tmp_path / "disk", MIB, {}), second["layers"][-1]), check)
        assert caught.value.code == "layer_missing" and caught.value.details["digest"] == base["layers"][0]


def test_a_chain_has_an_end(depot, tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "MAX_LAYERS", 1)
    with pytest.raises(GridError) as caught:
        captured(depot, RawDisk(write_raw(tmp_path / "disk", MIB, {}), put(depot)["layers"][0]))
    assert caught.value.code == "too_many_layers"


def chain(depot, tmp_path):
    base = put(depot, {0: block("a"), 1: block("b"), 15: block("c")})
    second = put(depot, {0: block("a"), 2: block("d")}, 2 * MIB, base, version="2")
    return put(depot, {0: block("e"), 2: block("d"), 31: block("f")}, 2 * MIB, second, tmp_path / "raw", version="3")


def flattened(depot, check=False, **entry):
    return ensure_flattened(depot, {"name": "tiny", "version": "3", **entry}, Progress(None), check)


def test_flatten(depot, tmp_path):
    third = chain(depot, tmp_path)
    said = flattened(depot, check=True)
    assert len(depot.read_layers()) == 3
    done = flattened(depot)
    assert said == done and done["actions"] == ["flatten"] and done["layers"] == [done["digest"]]
    assert done["version"] == done["digest"][7:19] and (done["user"], done["python"]) == (
        third["user"],
        third["python"],
    )
    same_content(tmp_path / "raw", done["path"])
    assert os.path.getsize(done["path"]) == done["size"] and depot.index(done["digest"]).parent is None
    assert flattened(depot)["changed"] is False and flattened(depot, version=done["version"])["changed"] is False
    assert (
        flattened(depot, new_version="flat")["actions"] == ["name"]
        and flattened(depot, new_version="flat")["changed"] is False
    )
    with pytest.raises(GridError) as caught:
        flattened(depot, new_version="1")
    assert caught.value.code == "version_taken"


def test_flattening_gives_damage_no_new_name(depot, tmp_path):
    third = chain(depot, tmp_path)
    damaged = third["layers"][1]
    with open(depot.layer_path(damaged), "r+b") as stream:
        stream.seek(-100, os.SEEK_END)
        stream.write(b"!")
    with pytest.raises(GridError) as caught:
        flattened(depot)
    assert caught.value.code == "layer_corrupted" and caught.value.details["digest"] == damaged
    assert len(depot.read_layers()) == 3 and os.listdir(depot.staging) == []


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"version": "9"}, "image_unknown"),
        ({"version": None}, "invalid_image"),
        ({"machine": UUID}, "invalid_image"),
        ({"new_version": "/"}, "invalid_version"),
    ],
)
def test_what_can_not_be_flattened(depot, tmp_path, entry, code):
    chain(depot, tmp_path)
    with pytest.raises(GridError) as caught:
        flattened(depot, **entry)
    assert caught.value.code == code


def test_flattening_needs_the_whole_chain(depot, tmp_path):
    third = chain(depot, tmp_path)
    os.unlink(depot.layer_path(third["layers"][0]))
    with pytest.raises(GridError) as caught:
        flattened(depot)
    assert caught.value.code == "layer_missing"


def test_prune(depot, tmp_path):
    third = chain(depot, tmp_path)
    for number in "123":
        os.unlink(os.path.join(depot.manifests, f"tiny@{number}.json"))
    assert ensure_pruned(depot, third["layers"][-1:], False)["changed"] is False
    with hold_as_a_sender_does(depot.layer_path(third["layers"][1])):
        said = ensure_pruned(depot, [], True)
        done = ensure_pruned(depot, [], False)
        assert said == done and done["removed_layers"] == third["layers"][2:] and done["kept_layers"] != []
        assert set(done["kept_layers"]) == set(third["layers"][:2]), (
            "what lies below a layer that is being sent must stay"
        )
    done = ensure_pruned(depot, [], False)
    assert set(done["removed_layers"]) == set(third["layers"][:2]) and done["freed"] > 0
    assert ensure_pruned(depot, [], False)["changed"] is False and os.listdir(depot.layers) == []


def test_pruning_believes_no_digest_that_is_none(depot):
    with pytest.raises(GridError) as caught:
        ensure_pruned(depot, ["../../etc/passwd"], False)
    assert caught.value.code == "invalid_digest"


def test_pruning_where_nothing_is(tmp_path):
    assert ensure_pruned(Depot(str(tmp_path / "none")), [], False)["changed"] is False
    assert not (tmp_path / "none").exists()
