# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts and guests send: known fields in their own form, the rest dropped."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.observations import (
    read_layers,
    read_machine,
    usable_addresses,
)

UUID = "11111111-1111-4111-8111-111111111111"
TOLD = {"name": "web1", "uuid": UUID, "state": "running", "provider": "provider1"}
HOSTILE = ["{{ x }}", "a\nb", "$(id)", "'", "-o", "\x1b[31m", "x" * 10_000, None, 7, True, [], {}, [[]], {"a": {}}]


@pytest.mark.parametrize(
    ("given", "usable"),
    [
        (["198.18.1.5"], ["198.18.1.5"]),
        (["fd00::5", "198.18.1.5", "198.18.1.5/24"], ["198.18.1.5", "fd00::5"]),
        (["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "0.0.0.0", "::", "224.0.0.1"], []),
        (["198.18.1.5; id", "-oProxyCommand=id", "{{ x }}", None, 7], []),
        (["fd00::5%$(id)", "198.18.1.5%x"], []),
        ("198.18.1.5", []),
        (None, []),
    ],
)
def test_addresses(given, usable):
    assert usable_addresses(given) == usable


def test_a_flood_of_addresses_is_cut():
    assert len(usable_addresses([f"198.18.{number // 256}.{number % 256}" for number in range(5000)])) == 64


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "field",
    ["mac", "user", "python", "network", "goal", "image", "display", "tags", "addresses", "address_source", "owner"],
)
def test_hostile_values_are_dropped(field, value):
    read = read_machine({**TOLD, field: value, "surprise": value})
    got = read["owner"] if field == "owner" else read["facts"][field]
    assert not got and "surprise" not in read["facts"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mac", "52:54:00:12:34:56"),
        ("user", "debian"),
        ("python", "/usr/bin/python3"),
        ("network", "virtuoso"),
        ("goal", "pack"),
        ("image", {"name": "tiny@1", "digest": "sha256:" + "a" * 64}),
        ("display", {"type": "vnc", "host": "127.0.0.1", "port": 5900}),
        ("tags", ["a", "b"]),
    ],
)
def test_good_values_are_kept(field, value):
    assert read_machine({**TOLD, field: value})["facts"] == {field: value}


@pytest.mark.parametrize("value", [-1, 2**63, 1.5, "1", True, None])
@pytest.mark.parametrize(
    ("field", "column"), [("vcpus", "cpus"), ("memory", "memory"), ("disk", "disk"), ("generation", "generation")]
)
def test_impossible_counts_are_dropped(field, column, value):
    assert column not in read_machine({**TOLD, field: value})


@pytest.mark.parametrize("images", [None, "x", [None], [{"digest": "../x"}], [{"digest": 7}], {"digest": "x"}])
def test_hostile_layers_are_dropped(images):
    assert read_layers({"images": images}) == []
