# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image store: names only for whole files, one writer for one piece of work, leftovers swept."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.ensure import find_present
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import KEEP_PARTS, Depot, Made

from .making import block, put
from .test_header import qcow2
from .test_reference import manifest

MACHINE = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"


@pytest.fixture(name="depot")
def _depot(tmp_path):
    depot = Depot(str(tmp_path))
    depot.prepare()
    return depot


def give_machine(depot, digest, name="disk.qcow2"):
    """A machine whose disk is an overlay on the layer."""
    directory = os.path.join(depot.machines, MACHINE)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as stream:
        stream.write(qcow2(backing=depot.layer_path(digest).encode()))


def hold_as_a_sender_does(path):
    """The open file of somebody who gives the layer to another host."""
    stream = open(path, "rb")  # pylint: disable=consider-using-with
    fcntl.flock(stream, fcntl.LOCK_SH)
    return stream


def test_nothing_is_there_yet(tmp_path):
    depot = Depot(str(tmp_path / "nowhere"))
    assert depot.read_manifests() == ([], []) and depot.read_layers() == [] and depot.sweep() == []
    assert depot.manifest("tiny", "1") is None and not depot.has("sha256:" + "0" * 64)
    assert not (tmp_path / "nowhere").exists()


def test_commit(depot):
    made = put(depot)
    (digest,) = made["layers"]
    assert depot.manifest("tiny", "1") == made
    assert depot.complete(made)
    assert depot.read_layers() == [{"digest": digest, "size": made["size"], "path": depot.layer_path(digest)}]
    assert list(depot.index(digest).blocks) == [0]
    assert {os.stat(path).st_mode & 0o777 for path in (depot.layer_path(digest), depot.index_path(digest))} == {0o640}
    assert os.listdir(depot.staging) == []


def test_a_layer_that_was_cut_is_not_complete(depot):
    made = put(depot)
    os.truncate(depot.layer_path(made["layers"][0]), 3)
    assert not depot.complete(made)


def test_a_layer_without_its_index_is_not_there(depot):
    made = put(depot)
    os.unlink(depot.index_path(made["layers"][0]))
    assert not depot.complete(made) and depot.read_layers() == []
    with pytest.raises(GridError) as caught:
        depot.chain(made["layers"][0])
    assert caught.value.code == "layer_missing" and caught.value.details["digest"] == made["layers"][0]


def test_an_index_that_was_changed(depot):
    made = put(depot)
    with open(depot.index_path(made["layers"][0]), "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"!")
    with pytest.raises(GridError) as caught:
        depot.index(made["layers"][0])
    assert caught.value.code == "layer_corrupted"


def three(depot):
    """Three versions, each on the one before."""
    base = put(depot, {0: block("a")})
    second = put(depot, {0: block("a"), 1: block("b")}, below=base, version="2")
    third = put(depot, {0: block("c"), 1: block("b")}, below=second, version="3")
    return base, second, third


def test_a_chain(depot):
    dummy, dummy, third = three(depot)
    chain = depot.chain(third["layers"][-1])
    assert list(chain) == third["layers"] and [index.parent for index in chain.values()] == [None, *third["layers"][:2]]


def test_a_layer_needs_those_below_it(depot, tmp_path):
    """One that came before the layer below it isn't named, so that what has a name can be used."""
    elsewhere = Depot(str(tmp_path / "elsewhere"))
    dummy, second, dummy = three(elsewhere)
    top = second["layers"][-1]
    path = tmp_path / "layer"
    path.write_bytes(open(elsewhere.layer_path(top), "rb").read())
    made = Made(str(path), open(elsewhere.index_path(top), "rb").read())
    with pytest.raises(GridError) as caught:
        depot.commit(second, {top: made})
    assert caught.value.code == "layer_missing" and caught.value.details["digest"] == second["layers"][0]
    assert not depot.has(top) and depot.read_manifests() == ([], [])


@pytest.mark.parametrize(
    "wrong", [lambda layers: layers[1:], lambda layers: [layers[1], layers[0], layers[2]], lambda layers: layers[:1]]
)
def test_a_manifest_must_name_the_whole_chain_in_its_order(depot, wrong):
    dummy, dummy, third = three(depot)
    if len(wrong(third["layers"])) == 1:
        third = {**third, "layers": [*third["layers"], "sha256:" + "0" * 64]}
        expected = "layer_missing"
    else:
        third = {**third, "layers": wrong(third["layers"])}
        expected = "invalid_manifest"
    with pytest.raises(GridError) as caught:
        depot.commit({**third, "version": "4"}, {})
    assert caught.value.code == expected and depot.manifest("tiny", "4") is None


def test_remove_keeps_the_layers_that_are_below_others(depot):
    base, second, third = three(depot)
    assert depot.remove(second) == [] and depot.complete(third)
    assert depot.remove(third) == list(reversed(third["layers"][1:]))
    assert depot.remove(base) == base["layers"]


def test_prune(depot):
    base, second, third = three(depot)
    other = put(depot, {3: block("other")}, name="other")
    for name in ("tiny@2.json", "tiny@3.json", "other@1.json"):
        os.unlink(os.path.join(depot.manifests, name))
    with open(os.path.join(depot.layers, "rubbish"), "w", encoding="ascii"):
        pass
    give_machine(depot, second["layers"][-1])
    assert depot.layers_of_machines() == set(second["layers"])
    unneeded = {third["layers"][-1], other["layers"][0], "rubbish"}
    assert set(depot.unneeded()) == unneeded
    assert set(depot.unneeded([third["layers"][-1]])) == unneeded - {third["layers"][-1]}
    assert set(depot.prune([third["layers"][-1]])) == {other["layers"][0], "rubbish"}
    assert depot.complete(third) and not depot.has(other["layers"][0])
    assert depot.prune() == [third["layers"][-1]] and depot.complete(second) and depot.complete(base)
    assert depot.prune() == []
    assert sorted(os.listdir(depot.layers)) == sorted(
        file
        for digest in second["layers"]
        for file in (os.path.basename(depot.layer_path(digest)), os.path.basename(depot.index_path(digest)))
    )


def test_a_digest_elsewhere_keeps_what_is_below_it(depot):
    base, dummy, third = three(depot)
    for version in "123":
        os.unlink(os.path.join(depot.manifests, f"tiny@{version}.json"))
    assert depot.prune([third["layers"][-1]]) == [] and depot.has(base["layers"][0])


@pytest.mark.parametrize("which", ["layer_path", "index_path"])
def test_a_layer_that_is_being_sent_stays_until_the_next_time(depot, which):
    made = put(depot)
    os.unlink(os.path.join(depot.manifests, "tiny@1.json"))
    with hold_as_a_sender_does(getattr(depot, which)(made["layers"][0])):
        assert depot.prune() == [] and depot.has(made["layers"][0])
    assert depot.prune() == made["layers"]


def test_hostile_files_in_the_store_are_told_and_skipped(depot):
    put(depot)
    for name, content in {
        "x@1.json": "{",
        "y@1.json": json.dumps(manifest()),
        "z.json": "null",
        "notes.txt": "x",
    }.items():
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
    give_machine(depot, made["layers"][0])
    with open(os.path.join(depot.machines, MACHINE, "other.qcow2"), "wb") as stream:
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
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
with Depot(sys.argv[1]).job("a") as work:
    open(work + "/begun", "w").close()
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(depot, seconds):
    """Another process that has the job ``a``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, os.path.dirname(depot.images), str(seconds)],
        stdout=subprocess.PIPE,
        env=environment,
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
    assert (
        find_present(depot, {"name": "x", "digest": made["layers"][0]})["reference"]
        == f"{made['name']}@{made['version']}"
    )
    for entry in ({"name": made["name"], "version": "other"}, {"name": "x", "digest": "sha256:" + "f" * 64}):
        with pytest.raises(GridError) as caught:
            find_present(depot, entry)
        assert caught.value.code == "image_unknown" and caught.value.remedy
