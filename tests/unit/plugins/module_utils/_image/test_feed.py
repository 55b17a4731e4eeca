# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has come of a layer is shown to a pager: nothing that isn't there, nothing that a layer above hides, and never
the final tables before the end."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import boot, layout
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.boot_store import record_boot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, ZERO, Index, block_hash
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import feed, fetch, plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.view import View
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

from .test_transfer import PASS, SOURCE, Wire, noise

A = b"a" * 32
SIZE = 20000 * BLOCK


def words(view, index):
    text = view.tables()
    second = sorted({number // layout.ENTRIES for number in index.blocks})
    return {
        entry * layout.ENTRIES + place: int.from_bytes(text[(at * layout.ENTRIES + place) * 8 :][:8], "big")
        for at, entry in enumerate(second)
        for place in range(layout.ENTRIES)
    }


def test_a_view_names_what_has_come_and_what_is_zeros():
    index = Index(SIZE, None, {5: A, 9000: A, 9001: A})
    laid = layout.plan(index)
    view = View(index, laid)
    view.show([9000])
    found = words(view, index)
    assert found[9000] == laid.offsets[9000] | layout.COPIED and found[5] == found[9001] == 0
    assert found[6] == found[9002] == layout.READS_AS_ZEROS, "the lowest layer gives all that no other does"
    assert view.at + len(view.tables()) == laid.data_at


def test_when_all_has_come_the_view_says_of_the_blocks_what_the_file_will():
    index = Index(SIZE, "sha256:" + "1" * 64, {5: A, 6: ZERO, 9000: A})
    laid = layout.plan(index)
    view = View(index, laid)
    view.show([5, 9000])
    assert laid.tables[view.at :] == view.tables()


def test_what_a_layer_above_gives_is_not_shown():
    index = Index(SIZE, None, {5: A, 6: A})
    view = View(index, layout.plan(index), hidden={6, 7})
    view.show([5, 6])
    found = words(view, index)
    assert found[5] and not found[6] and not found[7] and found[8] == layout.READS_AS_ZEROS


class Pager:
    """A pager's monitor, which checks what it is given as QEMU would read it, block by block."""

    def __init__(self, path, depot, digest, fails=()):
        self.asked, self.nodes, self.fails = [], {}, fails
        self.pages = {}
        os.makedirs(feed.directory(depot, digest), exist_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path / "qmp"))
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            there, dummy = self.socket.accept()
            with there, there.makefile("rwb") as stream:
                stream.write(b'{"QMP": {}}\n')
                stream.flush()
                for line in stream:
                    request = json.loads(line)
                    answer = (
                        {"error": {"desc": "no"}}
                        if request["execute"] in self.fails
                        else {"return": self.answer(**request)}
                    )
                    stream.write(b'{"event": "X"}\n' + json.dumps(answer).encode() + b"\n")
                    stream.flush()

    def answer(self, execute, arguments):
        self.asked.append(execute)
        if execute == "blockdev-add":
            assert arguments["backing"] in ("source", *self.nodes) and arguments["read-only"]
            with open(arguments["file"]["filename"], "rb") as stream:
                self.nodes[arguments["node-name"]] = stream.read()
        elif execute == "blockdev-reopen":
            self.backing = arguments["options"][0]["backing"]
        elif execute == "blockdev-del":
            del self.nodes[arguments["node-name"]]
        return [{"node-name": name} for name in ("cache", *self.nodes)] if execute == "query-named-block-nodes" else {}

    def shown(self, index):
        """Numbers of the blocks that the node on top shows, each checked."""
        text = self.nodes[self.backing]
        laid = layout.plan(index)
        begin = View(index, laid).at
        numbers = []
        for number in index.data:
            entry = int.from_bytes(text[begin + (number % layout.ENTRIES) * 8 :][:8], "big")
            if entry:
                at = entry & ~layout.COPIED
                assert block_hash(text[at : at + BLOCK]) == index.blocks[number]
                numbers.append(number)
        return numbers


@pytest.fixture(name="wire")
def _wire(tmp_path, monkeypatch):
    monkeypatch.setattr(boot, "FIRST", 3)
    monkeypatch.setattr(feed, "QMP", str(tmp_path / "qmp"))
    return Wire(tmp_path, monkeypatch)


def get(wire, manifest, ahead=False):
    items = [plan.Item("x", manifest["version"], manifest["layers"][-1], None, None)]
    (outcome,) = fetch.get(wire.target, SOURCE, items, Progress(None), ahead=ahead)
    if isinstance(outcome, GridError):
        raise outcome
    return outcome


def test_what_a_boot_reads_comes_first_and_is_shown_and_the_rest_is_resumed(wire, tmp_path):
    one = wire.put("1", noise(1, 40))
    (digest,) = one["layers"]
    record_boot(wire.source, digest, [30, 2, 31])
    pager = Pager(tmp_path, wire.target, digest)
    index = wire.source.index(digest)
    assert get(wire, one, ahead=True) == {} and not wire.target.has(digest)
    assert pager.shown(index) == [2, 30, 31]
    came = get(wire, one)
    assert came["resumed"] == 3 * BLOCK and came["content"] == 37 * BLOCK and wire.same(one)
    assert pager.backing == "source" and not pager.nodes, "its file was taken away before it got its final tables"
    assert os.listdir(feed.directory(wire.target, digest)) == []


def test_a_pager_that_starts_late_is_waited_for(wire, tmp_path):
    one = wire.put("1", noise(1, 10))
    (digest,) = one["layers"]
    os.makedirs(feed.directory(wire.target, digest))
    begun = []
    timer = threading.Timer(1, lambda: begun.append(Pager(tmp_path, wire.target, digest)))
    timer.start()
    get(wire, one, ahead=True)
    timer.join()
    assert begun[0].shown(wire.source.index(digest)) == [1, 2, 3]


def test_a_source_without_a_record_gives_the_beginning(wire, tmp_path, monkeypatch):
    monkeypatch.setattr(boot, "FIRST", 12)
    one = wire.put("1", noise(1, 40))
    (digest,) = one["layers"]
    pager = Pager(tmp_path, wire.target, digest)
    get(wire, one, ahead=True)
    assert pager.shown(wire.source.index(digest)) == list(range(1, 13))


def test_a_damaged_block_is_never_shown(wire, tmp_path):
    one = wire.put("1", noise(1, 40))
    (digest,) = one["layers"]
    record_boot(wire.source, digest, [30, 2, 31])
    pager = Pager(tmp_path, wire.target, digest)
    with open(wire.source.layer_path(digest), "r+b") as stream:
        stream.seek(layout.plan(wire.source.index(digest)).offsets[2])
        stream.write(b"!")
    with pytest.raises(GridError) as caught:
        get(wire, one, ahead=True)
    assert caught.value.code == "layer_corrupted" and 2 not in pager.shown(wire.source.index(digest))


def test_a_pager_that_keeps_the_file_keeps_the_layer_from_its_name(wire, tmp_path):
    one = wire.put("1", noise(1, 40))
    (digest,) = one["layers"]
    pager = Pager(tmp_path, wire.target, digest)
    get(wire, one, ahead=True)
    pager.fails = ("blockdev-reopen",)
    with pytest.raises(GridError) as caught:
        get(wire, one)
    assert caught.value.code == "export_failed" and not wire.target.has(digest)
    pager.fails = ()
    get(wire, one)
    assert wire.same(one)


def test_a_transfer_for_somebody_else_takes_the_file_from_the_pager_first(wire, tmp_path):
    one = wire.put("1", noise(1, 40))
    two = wire.put("2", {**noise(1, 40), 50: noise(3, 1)[1]}, one)
    pager = Pager(tmp_path, wire.target, two["layers"][-1])
    get(wire, two, ahead=True)
    assert pager.backing.startswith("view-")
    get(wire, one)
    assert pager.backing == "source" and wire.same(one)


def test_a_killed_run_is_gone_on_with_while_a_pager_has_its_file(wire, tmp_path, monkeypatch):
    monkeypatch.setattr(boot, "FIRST", 500)
    one = wire.put("1", noise(1, 600), size=1000 * BLOCK)
    (digest,) = one["layers"]
    pager = Pager(tmp_path, wire.target, digest)
    wire.connect(
        PASS.replace("while text", "came = 0\nwhile text and came < 20000000").replace(
            "    far", "    came += len(text); far"
        )
    )
    with pytest.raises(GridError):
        get(wire, one, ahead=True)
    wire.connect(PASS)
    assert get(wire, one)["resumed"] > 0 and wire.same(one) and not pager.nodes


def test_the_rest_gives_way_to_machines_that_read(tmp_path, wire, monkeypatch):
    digest = wire.put("1", noise(1, 2))["layers"][0]
    os.makedirs(feed.directory(wire.target, digest))
    now, slept = [100.0], []
    monkeypatch.setattr(feed.time, "monotonic", lambda: now[0])
    cache = os.path.join(feed.directory(wire.target, digest), "cache.qcow2")

    def sleep(seconds, reads=True):
        slept.append(seconds)
        now[0] += seconds
        if reads:
            with open(cache, "ab") as stream:
                stream.write(b"x")

    monkeypatch.setattr(feed.time, "sleep", sleep)
    rest = feed.Feed(wire.target, digest, False)
    rest.give_way(1000, 100.0)
    rest.give_way(1000, 100.0)
    assert 9 < sum(slept) <= 20, "its rate, while they read"
    slept.clear()
    monkeypatch.setattr(feed.time, "sleep", lambda seconds: sleep(seconds, reads=False))
    rest.give_way(100000, 100.0)
    assert sum(slept) <= feed.QUIET + 1, "as soon as they read no more, all of the link"
    rest.give_way(1000, None)
