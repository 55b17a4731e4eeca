# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers between two stores of this machine: the real sender, the real compressor, a pipe for the network."""

from __future__ import annotations

import json
import os
import random
import sys

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import index
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.add_layer import layer_of_raw, manifest_of
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import direct, fetch, link, plan, receive
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host import send
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

BLOCK = index.BLOCK
SOURCE = plan.Source("home1", "198.18.0.11", 22, "virtuoso", "/k", "/h")
NAMED = {"user": None, "python": None, "recipe_digest": None}


# A wire: the sender's output goes through a program that reads from ``near`` and writes to ``far``; both ends end with
# it.
WIRE = """
import subprocess, sys
log, program, *sender = sys.argv[1:]
with open(log, "a") as stream:
    stream.write("x\\n")
process = subprocess.Popen(sender, stdout=subprocess.PIPE)
near, far = process.stdout, sys.stdout.buffer
try:
    exec(program)
finally:
    process.kill()
"""
PASS = """
text = near.read1(3000000)
while text:
    far.write(text); far.flush()
    text = near.read1(3000000)
"""


def items_of(*manifests):
    return [plan.Item("x", manifest["version"], manifest["layers"][-1], None, None) for manifest in manifests]


class Wire:
    """Two stores and what lies between them. ``broken`` is a program for what comes through; see WIRE."""

    def __init__(self, path, monkeypatch):
        self.path = path
        self.source, self.target = Depot(str(path / "a")), Depot(str(path / "b"))
        self.source.prepare()
        self.log = path / "connections"
        self.monkeypatch = monkeypatch
        self.connect()

    def connect(self, broken=PASS):
        sender = [sys.executable, "-I", send.__file__, "--slots", str(self.path), str(self.path / "a" / "images")]
        argv = [sys.executable, "-c", WIRE, str(self.log), broken, *sender]
        self.monkeypatch.setattr(plan, "ssh_argv", lambda dummy: argv)

    def put(self, version, blocks, parent=None, size=64 * BLOCK):
        """A version in the source's store; its manifest."""
        raw = self.path / "raw"
        with raw.open("wb") as stream:
            stream.truncate(size)
            for number, block in blocks.items():
                stream.seek(number * BLOCK)
                stream.write(block)
        chain = parent["layers"] if parent else []
        below = index.merge(list(self.source.chain(chain[-1]).values())) if chain else {}
        with self.source.job("put") as work:
            digest, made, found = layer_of_raw(str(raw), work, below, chain[-1] if chain else None, Progress(None))
            manifest = manifest_of({"name": "x", "version": version, **NAMED}, [*chain, digest], found.virtual_size, 0)
            self.source.commit(manifest, {digest: made})
        return manifest

    def get(self, *manifests, bandwidth=None):
        return fetch.get(self.target, SOURCE, items_of(*manifests), Progress(None), plan.Cap(bandwidth))

    def watch_direct(self):
        """Whether the files that are written from now on go past the page cache."""
        opened, real = [], direct.Direct.__init__

        def note(each, *arguments):
            real(each, *arguments)
            opened.append(each.past)

        self.monkeypatch.setattr(direct.Direct, "__init__", note)
        return opened

    def one(self, manifest, **options):
        outcome = self.get(manifest, **options)[0]
        if isinstance(outcome, GridError):
            raise outcome
        return outcome

    def same(self, manifest):
        """Whether all layers of a version are here, byte for byte, and named."""
        for digest in manifest["layers"]:
            for path in (self.source.layer_path, self.source.index_path):
                here = path(digest).replace(self.source.layers, self.target.layers)
                with open(path(digest), "rb") as one, open(here, "rb") as other:
                    assert one.read() == other.read()
        return self.target.manifest("x", manifest["version"]) == manifest

    def connections(self):
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture(name="wire")
def _wire(tmp_path, monkeypatch):
    return Wire(tmp_path, monkeypatch)


def noise(seed, count, step=1, first=1):
    source = random.Random(seed)
    return {first + each * step: source.randbytes(BLOCK) for each in range(count)}


def test_a_first_copy_comes_whole_and_a_second_not_at_all(wire):
    one = wire.put("1", noise(1, 10))
    came = wire.one(one)
    assert (came["method"], came["content"], came["copied"], came["actions"]) == ("whole", 10 * BLOCK, 0, ["transfer"])
    assert wire.same(one) and wire.connections() == 1
    again = wire.one(one)
    assert (again["method"], again["transferred"], again["actions"], again["seconds"]) == ("none", 0, [], 0.0)
    assert wire.connections() == 1


def test_of_a_new_version_only_new_blocks_come_wherever_the_old_ones_are_now(wire):
    first = noise(1, 10)
    one = wire.put("1", first)
    moved = {number + 20: block for number, block in first.items()}
    two = wire.put("2", {**first, **moved, **noise(2, 3, first=50)}, one)
    wire.one(one)
    came = wire.one(two)
    assert (came["method"], came["content"], came["copied"]) == ("delta", 3 * BLOCK, 10 * BLOCK)
    assert came["base"] if "base" in came else one["layers"][0] in came["why"]
    assert wire.same(two)


def test_a_whole_chain_comes_in_one_connection_and_equal_blocks_once(wire):
    block = noise(1, 1)[1]
    one = wire.put("1", {1: block, 5: block, 9: block})
    two = wire.put("2", {1: block, 5: bytes(BLOCK), 9: block, 11: block}, one)
    came = wire.one(two)
    assert came["content"] == BLOCK and wire.same(two) and wire.connections() == 1


def test_a_connection_that_is_made_already_is_the_one(wire):
    one, two = wire.put("1", noise(1, 3)), wire.put("2", noise(2, 3))
    with link.Link(SOURCE) as begun:
        came = fetch.get(wire.target, SOURCE, items_of(one, two), Progress(None), begun=begun)
    assert [outcome["actions"] for outcome in came] == [["transfer"]] * 2
    assert wire.same(one) and wire.same(two) and wire.connections() == 1


def test_a_connection_that_was_made_already_and_is_lost_is_told(wire):
    one = wire.put("1", noise(1, 3))
    wire.connect("pass")
    with link.Link(SOURCE) as begun:
        (lost,) = fetch.get(wire.target, SOURCE, items_of(one), Progress(None), begun=begun)
    assert isinstance(lost, GridError) and lost.code in ("source_unreachable", "transfer_failed")


def test_what_can_be_compressed_is(wire):
    text = {
        number: bytes([number]) * (BLOCK // 2) + random.Random(number).randbytes(BLOCK // 2) for number in range(1, 40)
    }
    came = wire.one(wire.put("1", text))
    assert came["compression"] == "zstd -1" and came["transferred"] < 0.6 * came["content"]


def test_only_a_manifest_is_missing(wire):
    one = wire.put("1", noise(1, 4))
    two = wire.put("2", noise(1, 4))
    assert one["layers"] == two["layers"]
    wire.one(one)
    assert wire.one(two)["actions"] == ["name"] and wire.same(two)


def cut_after(count):
    """A wire that is cut after so many bytes."""
    return (
        f"left = {count}\n"
        "while left > 0:\n"
        "    part = near.read1(min(left, 65536))\n"
        "    if not part: break\n"
        "    left -= len(part); far.write(part); far.flush()\n"
    )


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_an_interrupted_transfer_resumes_with_the_rest(wire, part):
    one = wire.put("1", noise(1, 60, first=0))
    wire.connect(cut_after(int(part * 60 * BLOCK)))
    with pytest.raises(GridError) as caught:
        wire.one(one)
    assert caught.value.code in ("source_unreachable", "transfer_failed")
    assert not wire.target.has(one["layers"][0]) and wire.target.read_layers() == []
    wire.connect()
    came = wire.one(one)
    assert came["resumed"] + came["content"] == 60 * BLOCK
    assert came["resumed"] >= (part * 60 - 6) * BLOCK
    assert wire.same(one)


def test_what_was_damaged_since_is_not_believed_when_resuming(wire):
    one = wire.put("1", noise(1, 60, first=0))
    wire.connect(cut_after(40 * BLOCK))
    with pytest.raises(GridError):
        wire.one(one)
    (job,) = [name for name in os.listdir(wire.target.staging) if name.startswith("get-")]
    with open(os.path.join(wire.target.staging, job, "layer.part"), "r+b") as stream:
        stream.seek(12 * BLOCK + 5)
        stream.write(b"damage")
        stream.seek(100)
        stream.write(b"\xff" * 1000)
    wire.connect()
    wire.one(one)
    assert wire.same(one)


def test_a_layer_that_is_corrupted_at_the_source_is_never_named(wire):
    one = wire.put("1", noise(1, 20))
    with open(wire.source.layer_path(one["layers"][0]), "r+b") as stream:
        stream.seek(-BLOCK, os.SEEK_END)
        stream.write(b"flipped")
    with pytest.raises(GridError) as caught:
        wire.one(one)
    assert caught.value.code == "layer_corrupted" and caught.value.details["blocks"] == [20]
    assert "home1" in caught.value.msg
    assert wire.target.read_layers() == [] and wire.target.manifest("x", "1") is None


def test_bits_that_flip_on_the_way_are_asked_for_again(wire):
    one = wire.put("1", noise(1, 20))
    flag = wire.path / "flipped"
    flip = (
        "import os\n"
        "text = near.read1(3000000)\n"
        "while text:\n"
        f'    if len(text) > 60000 and not os.path.exists("{flag}"):\n'
        f'        open("{flag}", "w").close(); text = text[:30000] + bytes([text[30000] ^ 1]) + text[30001:]\n'
        "    far.write(text); far.flush()\n"
        "    text = near.read1(3000000)\n"
    )
    wire.connect(flip)
    wire.monkeypatch.setattr(plan, "QUICK", 0)
    came = wire.one(one)
    assert flag.exists() and came["content"] == 21 * BLOCK
    assert wire.same(one)


def test_a_layer_of_this_host_that_is_damaged_gives_no_blocks(wire):
    first = noise(1, 10)
    one = wire.put("1", first)
    two = wire.put("2", {**first, **{number + 20: block for number, block in first.items()}}, one)
    wire.one(one)
    with open(wire.target.layer_path(one["layers"][0]), "r+b") as stream:
        stream.seek(-2 * BLOCK, os.SEEK_END)
        stream.write(b"flipped")
    came = wire.one(two)
    assert (came["content"], came["copied"]) == (BLOCK, 9 * BLOCK)


@pytest.mark.parametrize("what", ["layer", "index", "short"])
def test_a_layer_that_the_source_has_not(wire, what):
    one = wire.put("1", noise(1, 5))
    path = wire.source.index_path(one["layers"][0]) if what == "index" else wire.source.layer_path(one["layers"][0])
    os.truncate(path, BLOCK) if what == "short" else os.unlink(path)
    with pytest.raises(GridError) as caught:
        wire.one(one)
    assert caught.value.code == ("layer_corrupted" if what == "short" else "layer_missing")


def test_a_failed_image_leaves_the_others_alone(wire):
    one, two = wire.put("1", noise(1, 5)), wire.put("2", noise(2, 5))
    os.unlink(wire.source.layer_path(one["layers"][0]))
    outcomes = wire.get(one, two)
    assert outcomes[0].code == "layer_missing" and outcomes[1]["method"] == "whole" and wire.same(two)


def test_an_index_that_lies_is_refused(wire):
    one = wire.put("1", noise(1, 5))
    path = wire.source.index_path(one["layers"][0])
    huge = index.Index(2**40, None, {2**20: bytes([1]) * 32})
    with open(path, "wb") as stream:
        stream.write(index.encode(huge))
    with pytest.raises(GridError) as caught:
        wire.one(one)
    assert caught.value.code == "layer_corrupted"


@pytest.mark.parametrize(
    "changes", [{"layers": ["../../etc/passwd"]}, {"layers": ["sha256:" + "0" * 64] * 2}, {"name": "y"}]
)
def test_a_manifest_that_lies_is_refused(wire, changes):
    one = wire.put("1", noise(1, 5))
    with open(os.path.join(wire.source.manifests, "x@1.json"), "w", encoding="ascii") as stream:
        json.dump({**one, **changes}, stream)
    with pytest.raises(GridError) as caught:
        wire.one(one)
    assert caught.value.code == "invalid_manifest" and wire.target.manifest("x", "1") is None


def test_a_manifest_of_other_layers_than_the_chain_is_refused(wire):
    one = wire.put("1", noise(1, 5))
    two = wire.put("2", {**noise(1, 5), **noise(2, 2, first=30)}, one)
    with open(os.path.join(wire.source.manifests, "x@2.json"), "w", encoding="ascii") as stream:
        json.dump({**two, "layers": two["layers"][-1:]}, stream)
    with pytest.raises(GridError) as caught:
        wire.one(two)
    assert caught.value.code == "invalid_manifest"


def test_bandwidth_is_kept(wire, monkeypatch):
    slept = []
    pace = send.Pace(1000.0, clock=lambda: 50.0 + sum(slept))
    for dummy in range(10):
        slept.append(pace.pause(100))
    assert sum(slept) == pytest.approx(0.9)
    assert send.Pace(None).pause(10**9) == 0.0


def test_one_that_was_held_up_does_not_make_up_for_it():
    now = [0.0]
    pace = send.Pace(1000.0, clock=lambda: now[0])
    pace.pause(1)
    now[0] = 100.0
    assert pace.pause(1000) == 0.0
    assert pace.pause(1) == pytest.approx(0.9)


def test_a_source_that_hangs_is_given_up(wire, monkeypatch):
    one = wire.put("1", noise(1, 20))
    wire.connect("import signal; near.read(4000); signal.pause()")
    monkeypatch.setattr(link, "SILENCE", 0.5)
    with pytest.raises(GridError) as caught:
        wire.one(one)
    assert caught.value.code == "source_unreachable" and "nothing for 0.5 s" in caught.value.msg


def test_a_slow_stream_is_never_silent_for_long():
    assert send.Pace(1000.0).piece == 512 and send.Pace(100000.0).piece == 50000 and send.Pace(None).piece == send.PIECE


REQUESTS = [
    "nonsense",
    "[]",
    '{"get": "index", "digest": "sha256:../../../etc/passwd"}',
    '{"get": "manifest", "name": "../../../../etc/passwd"}',
    '{"get": "ranges", "digest": "sha256:%s", "ranges": [[-1, 5]]}' % ("0" * 64),
    '{"get": "ranges", "digest": "sha256:%s", "ranges": 5}' % ("0" * 64),
    '{"get": "ranges", "digest": "sha256:%s", "ranges": [], "level": "; id"}' % ("0" * 64),
    '{"get": "shell"}',
    "[" * 100000,
]


@pytest.mark.parametrize("request_line", REQUESTS, ids=range(len(REQUESTS)))
def test_the_sender_gives_nothing_else(wire, request_line):
    one = wire.put("1", noise(1, 2))
    line = request_line.replace("0" * 64, one["layers"][0][7:])
    with link.Link(SOURCE) as connection:
        connection.channel.send(line.encode() + b"\n")
        kind, length = send.FRAME.unpack(connection._fill(memoryview(bytearray(send.FRAME.size))))
        word = json.loads(bytes(connection._fill(memoryview(bytearray(length)))))
        assert kind == send.WORD and word["error"]["code"] in ("bad_request", "cut_off")
        # and goes on
        assert connection.manifest("x@1")


@pytest.mark.parametrize("level", [0, 1])
def test_a_large_layer_goes_past_the_page_cache(wire, level):
    """In buffers that are used again while others are still looked at."""
    wire.monkeypatch.setattr(receive, "_LARGE", 0)
    wire.monkeypatch.setattr(plan.Measured, "packing", lambda *dummy: plan.Packing(level, plan.STRETCH, "told so"))
    opened = wire.watch_direct()
    one = wire.put("1", noise(1, 600), size=700 * BLOCK)
    assert wire.one(one)["content"] == 600 * BLOCK and wire.same(one)
    assert opened == [True], "the file system of this test can't do without the cache"


def test_a_small_layer_is_in_the_page_cache(wire):
    opened = wire.watch_direct()
    wire.one(wire.put("1", noise(1, 10)))
    assert opened and not any(opened)
