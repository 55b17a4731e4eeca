# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer asks for, and what its end means."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, ZERO, Index
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import blocks as fetch_plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host import send

from .test_reference import DIGEST, manifest

SOURCE = {
    "host": "198.18.0.11",
    "port": 22,
    "user": "virtuoso",
    "identity_file": "/etc/virtuoso/key",
    "known_hosts_file": "/etc/virtuoso/known_hosts",
    "name": "home1",
}
ITEM = {"name": "tiny@1", "digest": DIGEST, "size": 5}


def code_of(function, value):
    with pytest.raises(GridError) as caught:
        function(value)
    assert str(caught.value).isprintable()
    return caught.value.code


@pytest.mark.parametrize(
    "host", ["home1", "home1.example.net", "198.18.0.11", "2001:db8::1", "[2001:db8::1]", "fe80::1%eth0"]
)
def test_hosts(host):
    assert plan.ssh_argv(plan.parse_source({**SOURCE, "host": host}))[-2] == host.strip("[]")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"host": "-oProxyCommand=x"}, "invalid_source"),
        ({"host": "a b"}, "invalid_source"),
        ({"host": "a;b"}, "invalid_source"),
        ({"host": ""}, "invalid_source"),
        ({"host": "a\nb"}, "invalid_source"),
        ({"host": "x" * 300}, "invalid_source"),
        ({"port": 0}, "invalid_source"),
        ({"key_name": "a b"}, "invalid_source"),
        ({"key_name": "[a]:22 b"}, "invalid_source"),
        ({"port": 65536}, "invalid_source"),
        ({"user": "-l"}, "invalid_user"),
        ({"user": "a b"}, "invalid_user"),
        ({"identity_file": "x"}, "invalid_path"),
        ({"known_hosts_file": "/a/../b"}, "invalid_path"),
    ],
)
def test_hostile_sources(changes, code):
    assert code_of(plan.parse_source, {**SOURCE, **changes}) == code


def test_the_command():
    argv = plan.ssh_argv(
        plan.parse_source({**SOURCE, "identity_file": "/etc/my keys/x", "key_name": "[198.18.0.11]:2222"})
    )
    assert argv[-3:] == ["--", "198.18.0.11", "send"]
    assert argv[argv.index("-i") + 1] == "/etc/my keys/x" and argv[argv.index("-F") + 1] == "/dev/null"
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ConnectTimeout=15",
        "HostKeyAlias=[198.18.0.11]:2222",
    ):
        assert argv[argv.index(option) - 1] == "-o"


def test_items():
    item = plan.parse_item({**ITEM, "manifest": manifest(layers=[DIGEST])})
    assert (item.name, item.version, item.digest, item.size) == ("tiny", "1", DIGEST, 5)
    assert plan.parse_item({"name": "tiny@1", "digest": DIGEST}).size is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "tiny"}, "invalid_reference"),
        ({"name": "../x@1"}, "invalid_reference"),
        ({"digest": None}, "invalid_digest"),
        ({"digest": "sha256:../../etc/passwd"}, "invalid_digest"),
        ({"size": -1}, "invalid_size"),
        ({"size": "1 GiB"}, "invalid_size"),
        ({"size": 2**64}, "invalid_size"),
        ({"size": True}, "invalid_size"),
        ({"manifest": {"layers": ["/etc/passwd"]}}, "invalid_manifest"),
        ({"manifest": manifest(name="other")}, "invalid_manifest"),
        ({"manifest": manifest(layers=["sha256:" + "1" * 64])}, "layer_changed"),
    ],
)
def test_hostile_items(changes, code):
    assert code_of(plan.parse_item, {**ITEM, **changes}) == code


@pytest.mark.parametrize(
    ("has_layer", "found", "actions"),
    [
        (False, None, ["transfer"]),
        (False, manifest(), ["transfer"]),
        (True, None, ["name"]),
        (True, manifest(), []),
        (True, manifest(layers=["sha256:" + "1" * 64]), ["name"]),
    ],
)
def test_decide(has_layer, found, actions):
    assert plan.decide(has_layer, found, DIGEST) == actions


A, B, C, D = (bytes([each]) * 32 for each in range(1, 5))


def fetched(blocks, whole=(), local=None):
    fetch = fetch_plan.plan_fetch(Index(2**30, None, blocks), set(whole), local or {})
    return fetch.here, fetch.order, fetch.repeats


def test_nothing_is_asked_for_that_is_here_or_comes_anyway():
    assert fetched({1: A, 2: B, 5: A, 7: C}) == ({}, [1, 2, 7], {5: 1})
    assert fetched({1: A, 2: B, 5: A}, whole=[1]) == ({}, [2], {5: 1})
    assert fetched({1: A, 2: B, 5: A}, local={A: ("sha256:x", 9)}) == (
        {1: ("sha256:x", 9), 5: ("sha256:x", 9)},
        [2],
        {},
    )
    assert fetched({1: A, 3: ZERO}) == ({}, [1], {})


def test_what_a_boot_reads_comes_first_and_in_its_order():
    index = Index(2**30, None, {1: A, 2: B, 5: A, 7: C, 8: D})
    fetch = fetch_plan.plan_fetch(index, {8}, {}, [7, 5, 8])
    assert (fetch.order, fetch.repeats) == ([7, 5, 2], {1: 5})
    ahead = fetch_plan.only(fetch, {7, 5, 8})
    assert (ahead.order, ahead.repeats) == ([7, 5], {})


def test_of_equal_blocks_here_the_first_layer_counts():
    layers = {"below": Index(2**30, None, {1: A, 2: B}), "other": Index(2**30, None, {4: A, 5: C, 6: ZERO})}
    places = fetch_plan.places_by_hash(layers)
    assert places == {A: ("below", 1), B: ("below", 2), C: ("other", 5)}
    assert fetch_plan.nearest(fetch_plan.plan_fetch(Index(2**30, None, {7: B, 8: A, 9: C}), set(), places)) == "below"
    assert fetch_plan.nearest(fetch_plan.plan_fetch(Index(2**30, None, {7: D}), set(), places)) is None


def seen(*parts):
    measured = plan.Measured()
    for level, content, came, seconds, waited in parts:
        measured.see(level, content, (came, seconds), waited)
    return measured


GLANCED = (0, 8 * BLOCK, 8 * BLOCK)
BIG = 64 * 2**20


@pytest.mark.parametrize(
    ("parts", "level", "blocks"),
    [
        ([], 0, plan.GLANCE),
        ([(*GLANCED, 0.001, None)], 0, plan.STRETCH),  # faster than what is compressed for it
        ([(*GLANCED, 0.006, None)], plan.QUICK, plan.PROBE),  # 700 Mbit/s: it isn't clear
        ([(*GLANCED, 0.004, None)], 0, plan.TRY),  # a glance shows less than a fast link gives
        ([(*GLANCED, 0.004, None), (0, BIG, BIG, 0.2, None)], 0, plan.STRETCH),
        ([(*GLANCED, 0.004, None), (0, BIG, BIG, 0.5, None)], plan.QUICK, plan.PROBE),
        ([(*GLANCED, 0.004, None), (0, BIG, BIG, 0.5, None), (1, BIG, BIG // 4, 0.4, 0.39)], plan.QUICK, plan.STRETCH),
        ([(*GLANCED, 0.004, None), (0, BIG, BIG, 0.5, None), (1, BIG, BIG // 4, 0.6, 0.39)], 0, plan.STRETCH),
        ([(*GLANCED, 0.05, None)], plan.MIDDLE, plan.STRETCH),  # 100 Mbit/s
        ([(*GLANCED, 0.5, None)], plan.THOROUGH, plan.STRETCH),  # 10 Mbit/s
        ([(*GLANCED, 0.5, None), (7, BIG, BIG // 4, 16.0, 0.1)], plan.THOROUGH, plan.STRETCH),
        # the compressor is waited for: does the link take more?
        ([(*GLANCED, 0.006, None), (1, BIG, BIG // 4, 0.2, 0.19)], 0, plan.TRY),
        # it does
        ([(*GLANCED, 0.006, None), (1, BIG, BIG // 4, 0.2, 0.19), (0, BIG, BIG, 0.1, None)], 0, plan.STRETCH),
        # it doesn't: what is compressed goes faster although it is waited for
        ([(*GLANCED, 0.006, None), (1, BIG, BIG // 4, 0.2, 0.19), (0, BIG, BIG, 0.6, None)], plan.QUICK, plan.STRETCH),
        # the link is what is waited for
        ([(*GLANCED, 0.006, None), (1, BIG, BIG // 4, 0.2, 0.01)], plan.MIDDLE, plan.STRETCH),
        # it was fast, and isn't any more
        ([(*GLANCED, 0.001, None), (0, BIG, BIG, 5.0, None)], plan.MIDDLE, plan.STRETCH),
    ],
)
def test_packing_follows_what_was_seen(parts, level, blocks):
    packing = seen(*parts).packing(None)
    assert packing[:2] == (level, blocks) and packing.why


@pytest.mark.parametrize(
    ("text", "link", "limit"),
    [
        (None, 1e6, None),
        ("", None, None),
        ("10 MiB", 1e9, 10 * 2**20),
        ("40 %", None, None),
        ("40%", 1e7, 4000000),
        ("1 %", 3.0, 1),
    ],
)
def test_caps(text, link, limit):
    assert plan.parse_cap(text).limit(link) == limit


@pytest.mark.parametrize("text", ["0 %", "100 %", "-5 %", "fast", "0"])
def test_a_cap_that_is_none(text):
    with pytest.raises(GridError) as caught:
        plan.parse_cap(text)
    assert caught.value.code == "invalid_size"


def test_a_cap_is_a_slow_link():
    assert seen((*GLANCED, 0.001, None)).packing(12 * 2**20).level == plan.MIDDLE
    assert seen((*GLANCED, 0.001, None)).packing(2**20).level == plan.THOROUGH


@pytest.mark.parametrize(
    ("level", "spare", "most"), [(1, False, 5), (4, False, 5), (7, False, 9), (7, True, None), (1, True, None)]
)
def test_the_compressor_may_be_no_slower_than_the_link(level, spare, most):
    argv = send.compressor(level, spare)
    assert [word for word in argv if word.startswith("--adapt")] == ([] if spare else [f"--adapt=min=1,max={most}"])
    assert f"-{min(level, 3) if spare else level}" in argv


def test_a_link_that_waits_for_the_compressor_is_not_taken_for_slow():
    fast, slow = 400e6, 20e6
    assert seen(
        (0, BIG, BIG, BIG / fast, None), (1, BIG, BIG // 4, BIG / 4 / slow, BIG / 4 / slow)
    ).link == pytest.approx(fast)
    assert seen((0, BIG, BIG, BIG / fast, None), (1, BIG, BIG // 4, BIG / 4 / slow, 0.1)).link == pytest.approx(slow)


@pytest.mark.parametrize(
    ("blocks", "left", "count"), [(8, 300, 8), (64, 292, 64), (64, 100, 100), (8192, 5000, 5000), (8192, 9000, 8192)]
)
def test_a_short_end_goes_with_what_comes_before_it(blocks, left, count):
    assert plan.stretch(plan.Packing(1, blocks, ""), left) == count


def test_neighbours_are_one_range():
    offsets = {1: 10 * BLOCK, 2: 11 * BLOCK, 9: 12 * BLOCK, 10: 14 * BLOCK}
    assert plan.ranges_of([1, 2, 9, 10], offsets) == [(10 * BLOCK, 3 * BLOCK), (14 * BLOCK, BLOCK)]
    assert plan.ranges_of([], {}) == []


def test_a_block_that_is_another_is_noticed():
    assert plan.wrong_blocks([3, 4], [A, B], {3: A, 4: C}) == [4]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "missing", "msg": "layers/x is not here"}, "layer_missing"),
        ({"code": "cut_off", "msg": "x"}, "layer_corrupted"),
        ({"code": "io_error", "msg": "\x1b[2J" * 99}, "transfer_failed"),
        ("text", "transfer_failed"),
        (None, "transfer_failed"),
    ],
)
def test_refusals(error, code):
    refusal = plan.refusal(plan.parse_source(SOURCE), error, "layer_missing")
    assert refusal.code == code and "home1" in str(refusal) and str(refusal).isprintable() and refusal.remedy


@pytest.mark.parametrize(
    ("rc", "stderr", "code"),
    [
        (255, "Warning: x\nssh: connect to host 198.18.0.9 port 22: Connection timed out", "source_unreachable"),
        (255, "client_loop: send disconnect: Broken pipe", "source_unreachable"),
        (255, "virtuoso@h: Permission denied (publickey).", "source_refused"),
        (255, "No ED25519 host key is known for h\nHost key verification failed.", "source_untrusted"),
        (255, "", "source_unreachable"),
        (-9, "", "source_unreachable"),
        (127, "sh: 1: python3: not found", "transfer_failed"),
    ],
)
def test_blame(rc, stderr, code):
    error = plan.blame(plan.parse_source(SOURCE), rc, stderr)
    assert error.code == code
    assert "home1" in str(error) and error.remedy
