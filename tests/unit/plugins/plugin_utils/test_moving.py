# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All steps of a journey in one task: in which order, on which host, and that what was started early does nothing
without its word."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time

import pytest
from ansible_collections.virtuoso.grid.plugins.action.machine_migrate import by_step, no_way_round
from ansible_collections.virtuoso.grid.plugins.module_utils import _hold
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import steps
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _stations
from ansible_collections.virtuoso.grid.plugins.plugin_utils._moving import Held, Trip, Ways

FACTS = {"name": "a", "uuid": "a", "state": "running"}
BAD = {"failed": True, "msg": "no", "failure": {"code": "move_failed", "copy": "source"}}


def test_the_word_is_waited_for_and_read(tmp_path):
    told = {}
    path = tmp_path / "send"
    thread = threading.Thread(target=lambda: told.update(_hold.word(str(path), longest=10)))
    thread.start()
    time.sleep(0.1)
    assert not told
    (tmp_path / ".word").write_text('{"machines": [1]}', encoding="utf-8")
    (tmp_path / ".word").rename(path)
    thread.join(5)
    assert told == {"machines": [1]}


def test_who_is_left_alone_does_nothing(tmp_path):
    def refused(path, **limits):
        with pytest.raises(GridError) as caught:
            _hold.word(str(path), **limits)
        return caught.value.code

    # Nobody came; somebody was there, and has gone; nobody says anything.
    assert refused(tmp_path / "never" / "send", patience=0.1) == "not_called"
    (tmp_path / "gone").mkdir()
    threading.Timer(0.2, (tmp_path / "gone").rmdir).start()
    assert refused(tmp_path / "gone" / "send", longest=10) == "not_called"
    assert refused(tmp_path / "send", longest=0.1) == "timed_out"


def test_the_shell_gives_whole_words_and_leaves_nothing_when_its_input_ends(tmp_path):
    directory = tmp_path / "words"
    with subprocess.Popen(
        ["/bin/sh", "-c", _stations.script(str(directory))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout.readline() == b"virtuoso-ready\n"
        assert directory.stat().st_mode & 0o777 == 0o700
        word = {"machines": [{"name": "a b", "text": "\\n 'x' \"y\" %s $(touch z) \u00e4"}], "socket": None}
        shell.stdin.write(f"send {json.dumps(word)}\n".encode("ascii"))
        shell.stdin.flush()
        assert _hold.word(str(directory / "send"), longest=5) == word
        shell.stdin.close()
        shell.wait(5)
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_serves_answers_through_the_shell_until_nobody_listens(tmp_path):
    directory = tmp_path / "words"
    with subprocess.Popen(
        ["/bin/sh", "-c", _stations.script(str(directory))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout.readline() == b"virtuoso-ready\n"
        words = _hold.Words(str(directory / "serve"))
        for number in range(2):
            shell.stdin.write(f'serve.{number} {{"step": "look", "text": "{number}"}}\n'.encode())
            shell.stdin.flush()
            assert words.next() == {"step": "look", "text": str(number)}
            # Who is started again doesn't do it again.
            assert not (directory / f"serve.{number}").exists()
            assert words.answer({"big": "x" * 30000, "text": "\n\u00e4"})
            assert json.loads(shell.stdout.readline()) == {
                "number": number,
                "result": {"big": "x" * 30000, "text": "\n\u00e4"},
            }
        shell.stdin.close()
        shell.wait(5)
        assert words.answer({}) is False
        with pytest.raises(GridError) as caught:
            words.next()
        words.close()
    assert caught.value.code == "not_called" and list(tmp_path.iterdir()) == []


def test_the_shell_is_ready_when_answers_are_read_and_its_reader_ends_with_it(tmp_path):
    directory, slow = tmp_path / "words", tmp_path / "cat"
    slow.write_text('#!/bin/sh\nsleep 0.3\nexec /bin/cat "$@"\n', encoding="utf-8")
    slow.chmod(0o700)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["/bin/sh", "-c", _stations.script(str(directory))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as shell:
        assert shell.stdout.readline() == b"virtuoso-ready\n"
        # As a module does: without a reader this fails.
        os.close(os.open(directory / _hold.ANSWERS, os.O_WRONLY | os.O_NONBLOCK))
        shell.kill()
        # Nobody else has its output: it ends when the reader does.
        assert shell.communicate(timeout=5)[0] == b""


def test_one_that_is_started_again_after_the_first_had_its_word_ends(tmp_path):
    (tmp_path / "serve.0").write_text('{"step": "look"}', encoding="utf-8")
    assert _hold.Words(str(tmp_path / "serve")).next() == {"step": "look"}
    (tmp_path / "serve.1").write_text('{"step": "send"}', encoding="utf-8")
    with pytest.raises(GridError) as caught:
        _hold.Words(str(tmp_path / "serve")).next()
    assert caught.value.code == "link_lost" and (tmp_path / "serve.1").exists()


def test_the_shell_takes_no_directory_that_is_there(tmp_path):
    done = subprocess.run(
        ["/bin/sh", "-c", _stations.script(str(tmp_path))], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 1 and b"ready" not in done.stdout and tmp_path.is_dir()


def test_what_goes_wrong_in_the_background_is_a_result():
    def bad(exc):
        def work():
            raise exc

        return _stations.Background(work).result()

    assert bad(GridError("x", "no"))["failure"]["code"] == "x"
    assert bad(_stations.AnsibleConnectionFailure("gone"))["unreachable"] is True
    assert bad(ValueError("odd"))["failed"] and "odd" in bad(ValueError("odd"))["msg"]


class Station:
    """A host that says what it is asked, and answers as it is told."""

    def __init__(self, name, log, answers, caller=None):
        self.name, self.log, self.answers, self.caller = name, log, answers, caller

    def listen(self):
        self.log.append(f"listen {self.name}")

    def run(self, arguments):
        step = arguments["step"]
        if "hold" in arguments:
            return self.caller.heard(step)
        self.log.append(f"{step} {self.name} {arguments.get('socket', '-')}")
        return {"machines": [{"uuid": entry["uuid"], **self.answers.get(step, {})} for entry in arguments["machines"]]}

    def begin(self, name, arguments):
        self.log.append(f"begin {name} {self.name}")
        return _stations.Begun(self, name, arguments, self.caller)


class Caller:
    def __init__(self, result=None, deaf=False):
        self.result, self.deaf, self.said = result, deaf, []
        self.called = threading.Event()

    def path(self, name):
        return f"/nowhere/{name}"

    def say(self, name, values):
        self.said.append((name, values))
        self.called.set()
        if self.deaf:
            raise BrokenPipeError

    def heard(self, step):
        self.called.wait(5)
        return self.result


def machine(mode="live", **more):
    was = "stopped" if mode == "cold" else "running"
    base = {
        "name": "a",
        "uuid": "a",
        "source": "p1",
        "target": "p2",
        "mode": mode,
        "status": "planned",
        "was": was,
        "missing": [],
    }
    return {**base, "seed": "s", **more}


def trip(answers, mode="live", way=lambda: Held(contextlib.nullcontext("/socket")), order=steps.ORDER):
    log = []
    stations = {"source": Station("p1", log, answers), "target": Station("p2", log, answers)}
    journey = {"source": "p1", "target": "p2", "machines": [machine(mode)]}
    found = Trip(
        journey, stations, {step: {"step": step} for step in steps.ORDER}, way, lambda given, result: result, order
    ).run()
    return (
        found["machines"][0],
        [line for line in log if not line.startswith("begin")],
        [line for line in log if line.startswith("begin")],
    )


def test_a_live_journey():
    after, did, begun = trip({"send": {"stats": {"downtime": 7}}, "receive": {"facts": FACTS}})
    assert sorted(did[:3]) == ["listen p1", "listen p2", "prepare p2 -"]
    assert did[3:] == ["send p1 /socket", "receive p2 -"]
    assert begun == ["begin send p1", "begin receive p2"]
    assert after["status"] == "received" and after["row"]["stats"] == {"downtime": 7}


def test_files_and_then_the_source_lets_go():
    after, did, begun = trip({"send": {"files": {}, "port": 5}, "receive": {"facts": FACTS}}, "hibernated")
    assert did[3:] == ["send p1 -", "receive p2 -", "settle p1 -"]
    assert begun[-1] == "begin settle p1" and after["status"] == "done"


def test_what_the_target_refuses_goes_nowhere():
    after, did, dummy = trip({"prepare": BAD})
    assert not any(line.startswith(("send", "receive", "settle")) for line in did) and after["row"]["failed"]


def test_what_did_not_leave_is_thrown_away_at_the_target():
    after, did, dummy = trip({"send": BAD})
    assert did[3:5] == ["send p1 /socket", "receive p2 -"] and after["row"]["failure"]["code"] == "move_failed"


def test_without_a_way_nothing_is_sent():
    @contextlib.contextmanager
    def broken():
        raise GridError("target_unreachable", "no way")
        yield ""  # pylint: disable=unreachable

    after, did, dummy = trip({}, way=lambda: Held(broken()))
    assert not any(line.startswith(("send", "receive")) for line in did)
    assert after["row"]["failure"]["code"] == "target_unreachable" and "no way" in after["row"]["msg"]


def test_check_mode_only_asks_the_target():
    after, did, begun = trip({}, order=steps.ORDER[:1], way=lambda: pytest.fail("no way is made"))
    assert (
        sorted(did[:3]) == ["listen p1", "listen p2", "prepare p2 -"] and begun == [] and after["status"] == "prepared"
    )


@pytest.mark.parametrize(
    "lost", [Caller({"failed": True, "failure": {"code": "not_called"}}), Caller({"machines": []}, deaf=True)]
)
def test_what_lost_its_connection_before_the_word_is_started_again(lost):
    log = []
    begun = _stations.Begun(Station("p1", log, {}, lost), "send", {"step": "send"}, lost)
    assert begun.call(machines=[{"uuid": "a"}])["machines"] == [{"uuid": "a"}] and log == ["send p1 -"]


def test_what_has_the_word_is_not_started_again():
    log, caller = [], Caller({"machines": [], "msg": "mine"})
    begun = _stations.Begun(Station("p1", log, {}, caller), "send", {"step": "send"}, caller)
    assert begun.call(machines=[{"uuid": "a"}])["msg"] == "mine" and log == []
    assert caller.said == [("send", {"machines": [{"uuid": "a"}]})]


def test_each_step_is_told_of_its_own_end():
    source, target = (
        {"name": "p1", "address": "198.18.0.21", "path": "/a"},
        {"name": "p2", "address": "198.18.0.22", "path": "/b"},
    )
    told = by_step({"source": source, "target": target, "parallel": 2, "downtime": 50, "uri": "u", "machines": []})
    assert [(step, told[step]["name"], told[step]["path"]) for step in steps.ORDER] == [
        ("prepare", "p2", "/b"),
        ("send", "p1", "/a"),
        ("receive", "p2", "/b"),
        ("settle", "p1", "/a"),
    ]
    assert told["send"]["target"] == target and told["send"]["downtime"] == 50 and "downtime" not in told["receive"]
    with pytest.raises(GridError):
        by_step({"source": source, "target": {"name": "p2"}})
    assert told["receive"]["source"] == {"name": "p1", "host": "198.18.0.21"} and told["receive"]["parallel"] == 2


def test_it_is_told_that_the_way_through_the_controller_failed_too():
    cut = {"uuid": "a", "failed": True, "msg": "p2: cut", "failure": {"code": "source_unreachable"}}
    after = no_way_round({"machines": [cut, {"uuid": "b", "msg": "other"}]}, GridError("relay_impossible", "no keys"))
    assert (
        after["machines"][0]["msg"] == "p2: cut; nor through the controller: no keys"
        and after["machines"][1]["msg"] == "other"
    )


def test_a_journey_that_could_not_be_made_is_told_for_each_machine():
    wave = [
        {
            "source": "p1",
            "target": "p2",
            "machines": [machine(), machine(name="b", uuid="b", status="failed", row={"name": "b", "failed": True})],
        }
    ]
    assert [journey["source"] for journey in steps.involved(wave, "move", ["p1"])] == ["p1"] and steps.involved(
        wave, "move", ["p2"]
    ) == []
    (after,) = steps.arrived(wave, {"p1>p2": {"unreachable": True, "msg": "gone"}})
    assert [row["row"].get("failure", {}).get("code") for row in after["machines"]] == ["host_unreachable", None]
    (after,) = steps.arrived(wave, {"p1>p2": {"machines": [{"uuid": "a", "status": "done"}]}})
    assert after["machines"] == [{"uuid": "a", "status": "done"}]


def test_a_way_that_was_expected_is_there_and_one_that_is_not_needed_ends():
    made, over = [], []

    @contextlib.contextmanager
    def way(source, target):
        made.append((source, target))
        yield f"/{source}-{target}"
        over.append((source, target))

    ways = Ways(way)
    ways.expect([("p1", "p2"), ("p1", "p3")])
    held = ways.take("p1", "p2")
    assert held.value() == "/p1-p2"
    # Another one is made for the second who asks, and for who was not expected.
    assert ways.take("p1", "p2").value() == "/p1-p2" and ways.take("p2", "p1").value() == "/p2-p1"
    assert sorted(made) == [("p1", "p2"), ("p1", "p2"), ("p1", "p3"), ("p2", "p1")]
    ways.close()
    assert over == [("p1", "p3")]
    held.close()
    assert over == [("p1", "p3"), ("p1", "p2")]
