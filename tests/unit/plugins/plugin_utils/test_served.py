# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that is started once for all steps, and what becomes of a step when it, or the way to it, has gone."""

from __future__ import annotations

import gc
import subprocess
import threading

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils import _hold
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils._served import Served, close_all, no_collection
from ansible_collections.virtuoso.grid.plugins.plugin_utils._stations import Caller, script


class Connection:
    """A way to this very host."""

    def __init__(self, directory):
        self.directory = directory

    def get_option(self, name):
        return "localhost"

    def _build_command(self, *words):
        return ["/bin/sh", "-c", script(str(self.directory))]


class Station:
    """Runs the module as a thread: what it is to do first, then what its words say."""

    def __init__(self, directory, behaviour):
        self.name = "p1"
        self.started = []
        self._behaviour = behaviour
        self.caller = Caller(Connection(directory))
        # The shell's directory is the one above, not the one that the caller chose.
        self.caller.path = lambda name: str(directory / name)

    def listen(self):
        assert self.caller.ready() and self.caller.ready()

    def close(self):
        self.caller.close()

    def run(self, arguments):
        self.started.append(arguments["step"])
        if arguments["step"] != "serve":
            return {"plain": arguments["step"]}
        return self._behaviour(_hold.Words(arguments["hold"]), self)


def honest(words, dummy):
    while True:
        try:
            told = words.next()
        except GridError as exc:
            return exc.result()
        if not told:
            return {"changed": False}
        result = {"did": told["step"], "n": told.get("n")}
        if not words.answer(result):
            return result


@pytest.fixture
def served(tmp_path):
    made = []

    def make(behaviour):
        station = Station(tmp_path / "words", behaviour)
        made.append(Served(station, {"uri": "u"}))
        made[-1].listen()
        return station, made[-1]

    yield make
    for each in made:
        each.close()
    assert list(tmp_path.iterdir()) == []


def test_it_is_started_once(served):
    station, host = served(honest)
    assert host.serves
    assert host.run({"step": "look"}) == {"did": "look", "n": None}
    begun = host.begin("send", {"step": "send", "n": 1})
    assert begun.call(n=2) == {"did": "send", "n": 2} and station.started == ["serve"]
    begun.dismiss()
    host.close()
    assert not host.serves


def test_one_that_never_came_is_started_for_each_step(served):
    station, host = served(lambda words, dummy: {"failed": True, "failure": {"code": "not_called"}})
    assert host.run({"step": "look"}) == {"plain": "look"} and host.run({"step": "send"}) == {"plain": "send"}
    assert station.started == ["serve", "look", "send"] and not host.serves


def test_one_that_ended_under_way_is_not_asked_again_for_what_it_may_have_done(served):
    def breaks(words, dummy):
        words.next()
        return {"unreachable": True, "msg": "gone"}

    station, host = served(breaks)
    assert host.run({"step": "send"}) == {"unreachable": True, "msg": "gone"} and station.started == ["serve"]
    # What comes after it is another matter.
    assert host.run({"step": "settle"}) == {"plain": "settle"}


def test_what_it_said_last_counts_though_it_has_ended_since(served):
    def last(words, dummy):
        told = words.next()
        words.answer({"did": told["step"]})
        words.close()
        return {"unreachable": True}

    station, host = served(last)
    assert host.run({"step": "send"}) == {"did": "send"}


def test_without_the_way_it_ends_with_what_became_of_its_step(served):
    begun, gone = threading.Event(), threading.Event()

    def works_on(words, dummy):
        told = words.next()
        begun.set()
        gone.wait(5)
        result = {"did": told["step"]}
        return result if not words.answer(result) else {"wrong": True}

    def cut(station):
        begun.wait(5)
        station.caller._process.kill()
        station.caller._process.wait()
        # Its reader ends with it, a while later where there is much to do.
        reader = f"^cat {station.caller.path(_hold.ANSWERS)}$"
        subprocess.run(
            ["timeout", "4", "sh", "-c", 'while pgrep -f "$1" >/dev/null; do sleep 0.01; done', "sh", reader],
            check=True,
        )
        gone.set()

    station, host = served(works_on)
    threading.Thread(target=cut, args=(station,)).start()
    assert host.run({"step": "send"}) == {"did": "send"}
    for path in sorted(station.caller.path(name) for name in (_hold.ANSWERS, "")):
        subprocess.run(["rm", "-rf", path], check=True)
    assert host.run({"step": "settle"}) == {"plain": "settle"}


def test_all_are_told_to_end_before_one_is_waited_for():
    log = []

    class Host:
        def __init__(self, name):
            self.name = name

        def dismiss(self):
            log.append(f"dismiss {self.name}")

        def close(self):
            log.append(f"close {self.name}")

    close_all([Host("p1"), Host("p2")])
    assert log == ["dismiss p1", "dismiss p2", "close p1", "close p2"]


def test_garbage_is_collected_again_whatever_happens():
    assert gc.isenabled()
    with pytest.raises(GridError), no_collection():
        assert not gc.isenabled()
        raise GridError("x", "y")
    assert gc.isenabled()
    gc.unfreeze()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
