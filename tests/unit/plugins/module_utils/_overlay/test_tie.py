# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tying a network to a home's LAN: what is made, what is somebody else's and stays, what is removed."""

from __future__ import annotations

import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.home import tie

SETTINGS = {
    "network": "lan",
    "bridge": "br-lan",
    "make": True,
    "ports": ["eth1"],
    "addresses": ["192.0.2.1/24"],
    "overlay": "vb01",
    "ends": ["vh01", "vl01"],
    "dhcp": False,
}


@pytest.fixture(name="kernel")
def _kernel(monkeypatch):
    """Interfaces by name, and every ip command that changed something; the network's own bridge is there."""
    there = {"vb01": {"mtu": 1450, "kind": "bridge"}, "eth1": {"mtu": 1500, "kind": None}}
    said = []

    def ip(*words, check=True):
        del check
        if "show" in words:
            entry = there.get(words[-1])
            if entry is None:
                return ""
            shown = {
                "mtu": entry["mtu"],
                "ifalias": entry.get("alias"),
                "master": entry.get("master"),
                "linkinfo": {"info_kind": entry["kind"]},
            }
            return json.dumps([shown])
        said.append(" ".join(words))
        if words[:2] == ("link", "add"):
            name = words[3]
            there[name] = {"mtu": 1500, "kind": words[words.index("type") + 1]}
            if "peer" in words:
                there[words[-1]] = {"mtu": 1500, "kind": "veth"}
        elif words[:2] == ("link", "set"):
            for key in ("alias", "master", "mtu"):
                if key in words:
                    there[words[3]][key] = words[words.index(key) + 1]
        elif words[:2] == ("link", "delete"):
            there.pop(words[3])
        return ""

    monkeypatch.setattr(tie, "ip", ip)
    return there, said


def test_a_bridge_is_made_tied_and_removed_again(kernel):
    there, said = kernel
    assert not tie.tied(SETTINGS)
    tie.up(SETTINGS)
    assert there["br-lan"]["alias"] == tie.MARK and there["eth1"]["master"] == "br-lan"
    assert (there["vh01"]["master"], there["vl01"]["master"]) == ("vb01", "br-lan")
    assert there["vl01"]["mtu"] == "1450" and "address replace 192.0.2.1/24 dev br-lan" in said
    assert tie.tied(SETTINGS)
    tie.down(SETTINGS)
    assert "br-lan" not in there and "vh01" not in there and "vb01" in there


def test_a_bridge_that_is_there_is_used_and_stays_as_it_is(kernel):
    there, said = kernel
    there["br-lan"] = {"mtu": 1500, "kind": "bridge"}
    mine = {**SETTINGS, "make": False, "ports": [], "addresses": []}
    tie.up(mine)
    assert not [line for line in said if "dev br-lan" in line or "address" in line]
    assert there["vl01"]["mtu"] == "1500", "a smaller one would become the bridge's own"
    tie.down(mine)
    assert "br-lan" in there and "vh01" not in there


@pytest.mark.parametrize(
    "entry, make, told",
    [
        ({"mtu": 1500, "kind": "bridge"}, True, "somebody else's"),
        ({"mtu": 1500, "kind": "bond"}, False, "no bridge"),
        (None, False, "there is no bridge"),
    ],
)
def test_what_can_not_be_is_told_and_nothing_is_done(kernel, entry, make, told):
    there, said = kernel
    if entry:
        there["br-lan"] = entry
    with pytest.raises(tie.TieError, match=told):
        tie.up({**SETTINGS, "make": make})
    assert said == []


def test_a_network_s_bridge_that_was_made_anew_is_seen(kernel):
    there, dummy = kernel
    tie.up(SETTINGS)
    there["vh01"].pop("master")
    assert not tie.tied(SETTINGS)
    tie.up(SETTINGS)
    assert tie.tied(SETTINGS)


def test_a_bridge_that_does_not_come_is_told(kernel, monkeypatch):
    there, dummy = kernel
    there.pop("vb01")
    monkeypatch.setattr(tie, "PATIENCE", 0.1)
    with pytest.raises(tie.TieError, match="virtuoso.grid.overlay"):
        tie.up(SETTINGS)
