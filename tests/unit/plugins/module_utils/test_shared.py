# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units, errors, differences, waits, commands and argument specifications."""

from __future__ import annotations

import json
import threading
import time

import pytest
from ansible.module_utils import basic
from ansible_collections.virtuoso.grid.plugins.module_utils import _run
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._diff import changed_keys, diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, attempt, run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size, parse_size
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for


@pytest.mark.parametrize(
    "text, size",
    [
        ("2 GiB", 2 * 2**30),
        ("512MiB", 512 * 2**20),
        ("1.5 TB", 1_500_000_000_000),
        (" 7 kb ", 7000),
        (4096, 4096),
        ("0", 0),
        ("0.5 KiB", 512),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "big",
        "-1 GiB",
        "2 GiG",
        "1,5 GiB",
        "1e9",
        None,
        True,
        [],
        "nan",
        "9" * 40,
        "0.3 B",
        "16 EiB",
        "2 GiB; rm",
        "\u0662 GiB",
    ],
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(GridError) as caught:
        parse_size(text, "memory")
    assert caught.value.code == "invalid_size"
    assert "memory" in str(caught.value) and caught.value.remedy


def test_a_size_out_of_range_says_the_range():
    with pytest.raises(GridError, match="between 16 MiB and 1 GiB"):
        parse_size("2 GiB", minimum=16 * 2**20, maximum=2**30)


@pytest.mark.parametrize(
    "size, text",
    [(0, "0 B"), (17, "17 B"), (2**30, "1 GiB"), (1536 * 2**20, "1.5 GiB"), (2**63, "8 EiB"), (1000, "1000 B")],
)
def test_sizes_are_shown(size, text):
    assert format_size(size) == text


def test_an_error_names_host_object_attempt_and_remedy():
    error = GridError("disk_full", "no space left", remedy="Free 2 GiB", free=17).on(
        host="provider1", object="machine web1", tried="create its disk"
    )
    assert str(error) == "provider1: machine web1: no space left (tried: create its disk). Free 2 GiB"
    assert error.failure() == {
        "code": "disk_full",
        "host": "provider1",
        "object": "machine web1",
        "tried": "create its disk",
        "remedy": "Free 2 GiB",
        "free": 17,
    }
    assert error.on(host="other").host == "provider1"


def test_one_failed_object_keeps_its_own_result():
    def work():
        raise GridError("no_room", "too small")

    result = attempt("web1", work, kind="machine", tried="start")
    assert (result["name"], result["changed"], result["failed"], result["failure"]["code"]) == (
        "web1",
        False,
        True,
        "no_room",
    )
    assert result["failure"]["object"] == "machine web1"
    assert attempt("web1", lambda: {"changed": True}, kind="machine", tried="start") == {
        "name": "web1",
        "changed": True,
    }


def test_a_difference_shows_only_what_differs():
    entry = diff("machine web1", {"memory": 1, "vcpus": 2}, {"memory": 2, "vcpus": 2})
    assert entry["before"] == '{\n  "memory": 1\n}\n' and entry["after"] == '{\n  "memory": 2\n}\n'
    assert diff("x", None, {"a": 1})["before"] == ""
    assert changed_keys(None, {"b": 1, "a": None}) == ["b"]


def test_waiting_ends_when_the_probe_returns_and_is_woken_by_an_event():
    wake, seen = threading.Event(), []

    def probe():
        seen.append(time.monotonic())
        if len(seen) < 2:
            threading.Timer(0.05, wake.set).start()
            raise Pending("shutting down")
        return "off"

    assert wait_for(probe, 30, what="the end", wake=wake, interval=20) == "off"
    assert seen[1] - seen[0] < 10


def test_waiting_tells_what_was_last_seen():
    def probe():
        raise Pending("still booting")

    with pytest.raises(GridError, match="still booting") as caught:
        wait_for(probe, 0, what="an address")
    assert caught.value.code == "timed_out"


def test_another_error_ends_the_wait_at_once():
    def probe():
        raise GridError("crashed", "the machine crashed")

    with pytest.raises(GridError, match="crashed"):
        wait_for(probe, 60, what="an address")


def test_a_command_gives_its_output():
    assert command(["cat"], input=b"caf\xc3\xa9") == "caf\u00e9"


def test_a_failed_command_tells_the_end_of_what_it_said():
    with pytest.raises(GridError, match="no such thing") as caught:
        command(["sh", "-c", "echo no such thing >&2; exit 3"], object="image tiny")
    assert (
        caught.value.code == "command_failed"
        and caught.value.details["rc"] == 3
        and caught.value.object == "image tiny"
    )


def test_a_missing_program_and_a_slow_one_are_told_apart():
    with pytest.raises(GridError) as caught:
        command(["no-such-program"])
    assert caught.value.code == "program_missing"
    start = time.monotonic()
    with pytest.raises(GridError) as caught:
        command(["sh", "-c", "sleep 600 & sleep 600"], timeout=0.2)
    assert caught.value.code == "timed_out" and time.monotonic() - start < 60


def test_arguments_are_merged_and_doubles_refused():
    merged = merge(
        HYPERVISOR,
        DEPOT,
        {"argument_spec": {"x": {}}, "required_if": [("x", 1, ["path"])]},
        {"supports_check_mode": True},
    )
    assert set(merged["argument_spec"]) == {"uri", "path", "x"} and merged["supports_check_mode"]
    with pytest.raises(ValueError, match="uri"):
        merge(HYPERVISOR, HYPERVISOR)


def test_errors_of_the_information_service_name_the_controller(monkeypatch, capsys):
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {}})
    monkeypatch.setattr(_run._Here, "name", "restored after the test")
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", arguments.encode())
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)

    def work(module):
        raise GridError("store_full", "no space left")

    with pytest.raises(SystemExit):
        run_module(work, where=CONTROLLER, argument_spec={})
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] and result["failure"] == {"code": "store_full", "host": "controller"}
    assert attempt("web1", lambda: work(None), kind="machine", tried="start")["failure"]["host"] == "controller"
