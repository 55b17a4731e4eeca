# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image store: names only for whole files, one writer for one piece of work, leftovers swept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.depot import KEEP_PARTS, Depot, content_digest
from ansible_collections.virtuoso.grid.plugins.module_utils._image.ensure import find_present

from .test_header import qcow2
from .test_reference import manifest


@pytest.fixture(name="depot")
def _depot(tmp_path):
    depot = Depot(str(tmp_path))
    depot.prepare()
    return depot


def put(depot, content=b"layer", **changes):
    """An image in the store; its manifest."""
    with depot.job("test") as work:
        path = os.path.join(work, "layer")
        with open(path, "wb") as stream:
            stream.write(content)
        made = manifest(layers=[content_digest(path)], size=len(content), **changes)
        depot.commit(made, {made["layers"][0]: path})
    return made


def test_nothing_is_there_yet(tmp_path):
    depot = Depot(str(tmp_path / "nowhere"))
    assert depot.read_manifests() == ([], []) and depot.read_layers() == [] and depot.sweep() == []
    assert depot.manifest("tiny", "1") is None and not depot.has("sha256:" + "0" * 64)
    assert not (tmp_path / "nowhere").exists()


def test_commit(depot):
    made = put(depot)
    assert depot.manifest("tiny", "1") == made
    assert depot.complete(made)
    assert depot.read_layers() == [{"digest": made["layers"][0], "size": 5, "path": depot.layer_path(made["layers"][0])}]
    assert content_digest(depot.layer_path(made["layers"][0])) == made["layers"][0]
    assert os.stat(depot.layer_path(made["layers"][0])).st_mode & 0o777 == 0o640
    assert os.listdir(depot.staging) == []


def test_a_layer_that_was_cut_is_not_complete(depot):
    made = put(depot)
    os.truncate(depot.layer_path(made["layers"][0]), 3)
    assert not depot.complete(made)


def test_hostile_files_in_the_store_are_told_and_skipped(depot):
    put(depot)
    for name, content in {"x@1.json": "{", "y@1.json": json.dumps(manifest()), "z.json": "null", "notes.txt": "x"}.items():
        with open(os.path.join(depot.manifests, name), "w", encoding="utf-8") as stream:
            stream.write(content)
    os.mkdir(os.path.join(depot.manifests, "dir@1.json"))
    os.symlink("/etc/passwd", os.path.join(depot.layers, "sha256-x.qcow2"))
    manifests, warnings = depot.read_manifests()
    assert [item["name"] for item in manifests] == ["tiny"] and len(warnings) == 4
    assert len(depot.read_layers()) == 1


def test_remove_keeps_layers_that_others_need(depot):
    one, two = put(depot), put(depot, name="other")
    assert depot.remove(one) == []
    assert depot.remove(two) == two["layers"]
    assert depot.read_layers() == [] and depot.read_manifests() == ([], [])


def test_remove_keeps_layers_that_machines_need(depot):
    made = put(depot)
    machine = os.path.join(depot.machines, "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11")
    os.makedirs(machine)
    with open(os.path.join(machine, "disk.qcow2"), "wb") as stream:
        stream.write(qcow2(backing=depot.layer_path(made["layers"][0]).encode()))
    with open(os.path.join(machine, "other.qcow2"), "wb") as stream:
        stream.write(b"no image")
    assert depot.remove(made) == []
    assert depot.has(made["layers"][0])


def test_a_job_leaves_only_what_is_resumed(depot):
    with pytest.raises(ValueError, match="oops"), depot.job("a") as work:
        for name in ("whole", "half.part"):
            with open(os.path.join(work, name), "w", encoding="ascii"):
                pass
        os.makedirs(os.path.join(work, "tree/usr"))
        raise ValueError("oops")
    assert os.listdir(work) == ["half.part"]
    with depot.job("a") as again:
        assert os.listdir(again) == ["half.part"]


def test_sweep(depot):
    for name in ("dead", "resumable", "old"):
        os.makedirs(os.path.join(depot.staging, name, "tree"))
    for name in ("resumable", "old"):
        open(os.path.join(depot.staging, name, "x.part"), "wb").close()
    long_ago = time.time() - KEEP_PARTS - 60
    os.utime(os.path.join(depot.staging, "old", "x.part"), (long_ago, long_ago))
    with depot.job("live"):
        assert sorted(depot.sweep()) == ["dead", "old", "resumable"]
        assert sorted(os.listdir(depot.staging)) == ["live", "live.lock", "resumable"]
    assert os.listdir(os.path.join(depot.staging, "resumable")) == ["x.part"]


HOLDER = """
import sys, time
from ansible_collections.virtuoso.grid.plugins.module_utils._image.depot import Depot
with Depot(sys.argv[1]).job("a") as work:
    open(work + "/begun", "w").close()
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(depot, seconds):
    """Another process that has the job ``a``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, os.path.dirname(depot.images), str(seconds)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_second_waits_for_the_first(depot):
    process = hold(depot, 0.6)
    begin = time.monotonic()
    with depot.job("a"):
        assert time.monotonic() - begin > 0.3
    assert process.wait() == 0
    process.stdout.close()


def test_a_killed_process_holds_nothing(depot):
    process = hold(depot, 60)
    process.kill()
    process.wait()
    process.stdout.close()
    assert os.path.exists(os.path.join(depot.staging, "a", "begun"))
    with depot.job("a") as work:
        assert os.listdir(work) == []
    assert os.listdir(depot.staging) == []


def test_an_image_without_a_source_must_be_there(depot):
    made = put(depot)
    by_version = find_present(depot, {"name": made["name"], "version": made["version"]})
    assert (by_version["digest"], by_version["changed"]) == (made["layers"][0], False)
    assert find_present(depot, {"name": "x", "digest": made["layers"][0]})["reference"] == f"{made['name']}@{made['version']}"
    for entry in ({"name": made["name"], "version": "other"}, {"name": "x", "digest": "sha256:" + "f" * 64}):
        with pytest.raises(GridError) as caught:
            find_present(depot, entry)
        assert caught.value.code == "image_unknown" and caught.value.remedy
