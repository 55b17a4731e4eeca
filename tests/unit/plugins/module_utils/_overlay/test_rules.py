# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a frame under a part's rules, read rule by rule as the kernel reads them, and how many rules it
meets."""

from __future__ import annotations

import fnmatch
import re

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.home import tie
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import groups
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import rules as rules_module
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import cable_name
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.rules import rules

MAC, OTHER = "02:00:00:00:00:11", "02:00:00:00:00:12"
GUEST, FREE, TREE, SHORTCUT, MESH, BESIDE = (
    "vm020000000011",
    "vm020000000009",
    "vt0000000001",
    "tap12",
    "vw0000000001",
    "tap13",
)
CABLE, STRANGER = cable_name("lan"), "eth7"
PATCHED = "vh0123456789"
OF_GUEST = groups.LINKS + 0x11


def link(device, peer, role, transport="vxlan", **more):
    """A link as it is in a part."""
    return {
        "device": device,
        "network": "lan",
        "peer": peer,
        "role": role,
        "transport": transport,
        "remote": "192.0.2.2",
        "vni": 7,
        **more,
    }


PEERS = [{"name": "p3", "address": "192.0.2.3", "speaks": True}]
PART = {
    "networks": [
        {"name": "lan", "bridge": "vb1", "mtu": 1450},
        {"name": "wild", "bridge": "vb2", "mtu": 1450, "spoofing": True},
    ],
    "links": [
        link(TREE, "p1", "tree"),
        link(SHORTCUT, "p2", "shortcut", "ssh"),
        link(BESIDE, "p3", "tree", "ssh"),
        link(MESH, "*", "evpn", "evpn", local="192.0.2.1", peers=PEERS),
    ],
    "guests": [
        {"device": GUEST, "mac": MAC, "network": "lan"},
        {"device": FREE, "mac": "02:00:00:00:00:09", "network": "wild"},
    ],
    "forwarding": [],
    "peers": ["192.0.2.2", "p1.example"],
}
_FIELD = r"iifname \. ether saddr|ether saddr|ether type|iifname \. oifname|iifname|oifname|ip saddr|meta nfproto"
_FIELD += r"|udp dport|tcp dport"
_GROUP = re.compile(r"([io]ifgroup)(?: & (0x\w+) ==)? (\d+) ?")
_CONDITION = re.compile(rf"({_FIELD}) (vmap |!= )?(@\w+|\{{.*?\}}|\S+) ?")


class Table:
    """One table's sets, maps and chains."""

    def __init__(self, text: str, family: str, name: str) -> None:
        body = text.split(f"\ntable {family} {name} {{\n")[1].split("\n}\n")[0]
        self.sets, self.chains = {}, {}
        for word, key, inner in re.findall(r"^  (set|map|chain) (\w+) \{\n(.*?)^  \}$", body, re.MULTILINE | re.DOTALL):
            lines = [line.strip() for line in inner.splitlines()]
            if word == "chain":
                self.chains[key] = [line for line in lines if not line.startswith("type filter")]
            else:
                self.sets[key] = "".join(line for line in lines if line.startswith("elements"))
        for key, rule in re.findall(rf"^add rule {family} {name} (\w+) (.*)$", text, re.MULTILINE):
            self.chains[key].append(rule)

    def _within(self, word: str) -> list[str]:
        found = self.sets[word[1:]] if word.startswith("@") else word
        return (
            [element.strip() for element in found[found.find("{") + 1 : found.rfind("}")].split(",")]
            if "{" in found
            else [word]
        )

    def run(self, chain: str, **frame: str) -> tuple[str, bool, int, bool]:
        """The verdict, whether it was counted, how many rules the frame met, and whether the host keeps no account of
        its connection."""
        place, counted, met, free = list(self.chains[chain]), False, 0, False
        while place:
            met, rule = met + 1, place.pop(0)
            verdict = self._verdict(rule, frame)
            counted, free = counted or "update @matrix" in verdict, free or verdict.startswith("notrack")
            if verdict.startswith("goto "):
                place = list(self.chains[verdict[5:]])
            elif verdict.split()[-1:] in (["accept"], ["drop"]):
                return verdict.split()[-1], counted, met, free
            elif verdict == "return":
                break
        return "accept", counted, met, free

    def _verdict(self, rule: str, frame: dict[str, str]) -> str:
        """What the rule says of the frame; nothing where it doesn't match."""
        while True:
            grouped = _GROUP.match(rule)
            if grouped:
                side, mask, number = grouped.groups()
                if int(frame.get(side, "0")) & int(mask or "0xffffffff", 16) != int(number):
                    return ""
                rule = rule[grouped.end() :]
                continue
            match = _CONDITION.match(rule)
            if not match:
                return rule
            field, how, word = match.groups()
            words = [
                part.removeprefix("meta ").removeprefix("ether ").removeprefix("ip ") for part in field.split(" . ")
            ]
            value = " . ".join(f'"{frame[part]}"' if part.endswith("ifname") else frame.get(part, "") for part in words)
            elements = self._within(word)
            if how == "vmap ":
                return dict(element.split(" : ") for element in elements).get(value, "")
            if any(fnmatch.fnmatchcase(value, element) for element in elements) == (how == "!= "):
                return ""
            rule = rule[match.end() :]


KEEP = ("bridge", "virtuoso_overlay")
FORWARD = Table(rules(PART), *KEEP)
CAME = Table(rules(PART), "bridge", "virtuoso_traffic")
INPUT = Table(rules(PART), "inet", "virtuoso_overlay")
MEMBERS = (GUEST, TREE, SHORTCUT, MESH, BESIDE)


@pytest.mark.parametrize("outside", [CABLE, PATCHED, STRANGER])
def test_members_exchange_frames_with_members_and_cables_only(outside):
    for one in (*MEMBERS, FREE):
        expected = "drop" if outside == STRANGER else "accept"
        assert FORWARD.run("keep", iifname=one, oifname=outside)[0] == expected, one
        assert FORWARD.run("keep", iifname=outside, oifname=one)[0] == expected, one
    # What has nothing to do with the networks is nobody's business here.
    assert FORWARD.run("keep", iifname=STRANGER, oifname="eth8")[0] == "accept"


def test_the_host_is_on_none_of_its_networks_and_tells_them_only_that_a_machine_has_come():
    for port in (*MEMBERS, FREE, CABLE, PATCHED):
        assert FORWARD.run("own", iifname=port)[0] == FORWARD.run("silent", oifname=port, type="0x0800")[0] == "drop", (
            port
        )
        assert FORWARD.run("silent", oifname=port, type="0x8035")[0] == "accept", port
    assert (
        FORWARD.run("own", iifname=STRANGER)[0] == FORWARD.run("silent", oifname=STRANGER, type="0x0800")[0] == "accept"
    )


@pytest.mark.parametrize("source", MEMBERS)
@pytest.mark.parametrize("many", [0, 48])
def test_what_came_by_a_shortcut_or_a_mesh_does_not_go_where_it_would_come_back(source, many):
    forward = Table(
        rules(
            {
                **PART,
                "links": [
                    *PART["links"],
                    *(link(f"vt{number:010x}", f"q{number}", "tree") for number in range(2, many)),
                ],
            }
        ),
        *KEEP,
    )
    shut = {SHORTCUT: {TREE, SHORTCUT, MESH, BESIDE}, MESH: {BESIDE}}.get(source, set())
    others = [target for target in MEMBERS if target != source or target == SHORTCUT]
    assert {target for target in others if forward.run("keep", iifname=source, oifname=target)[0] == "drop"} == shut


def test_ports_are_known_by_their_groups_and_links_that_keep_frames_to_themselves_are_in_none():
    assert groups.wanted(PART) == {GUEST: OF_GUEST, FREE: groups.LINKS + 9, TREE: groups.LINKS, BESIDE: groups.LINKS}
    # A mesh has other links' roles while a network changes over, and brings again what came by it all the same.
    for role in ("tree", "standby", "resting", "flooding"):
        assert MESH not in groups.wanted(
            {**PART, "links": [{**each, "role": role} for each in PART["links"] if each["device"] == MESH]}
        ), role
    grouped = [str(groups.LINKS), str(OF_GUEST), str(groups.PORTS)]
    for one, other in ((each, another) for each in grouped for another in grouped):
        assert FORWARD.run("keep", iifname="x", oifname="y", iifgroup=one, oifgroup=other)[::2] == ("accept", 1)
    for strange in ("0", "30312", str(groups.LINKS - 1), str(groups.LINKS + 0x01000000)):
        assert FORWARD.run("keep", iifname=STRANGER, oifname=GUEST, iifgroup=strange, oifgroup=grouped[1])[0] == "drop"
        assert FORWARD.run("keep", iifname=GUEST, oifname=STRANGER, iifgroup=grouped[1], oifgroup=strange)[0] == "drop"
    assert CAME.run("came", iifname=TREE, iifgroup=grouped[0], saddr=MAC)[1:] == (False, 1, True)
    # A guest's group doesn't spare it the question whose address it uses.
    assert CAME.run("came", iifname=GUEST, iifgroup=grouped[1], saddr=OTHER)[0] == "drop"
    assert tie.GROUP == grouped[2]


def test_who_leaves_a_group_does_so_before_the_rules_change_and_nothing_is_done_twice():
    tree, port = str(groups.LINKS), str(groups.PORTS)
    there = {
        GUEST: {"group": "default"},
        TREE: {"group": tree},
        SHORTCUT: {"group": tree},
        CABLE: {"group": port},
        FREE: {"group": str(OF_GUEST)},
    }
    there.update({"vm02": {"group": port}, "eth0": {}, "eth1": {"group": "30312"}, "eth2": {"group": "1993"}})
    done = groups.steps(PART, there, {BESIDE})
    # One that has another's number, or that its machine had before, leaves as well: the rules would take it for the
    # other.
    assert done["leave"] == [f"link set dev {name} group 0" for name in (SHORTCUT, "vm02", FREE)]
    assert done["join"] == [
        f"link set dev {BESIDE} group {tree}",
        f"link set dev {FREE} group {groups.LINKS + 9}",
        f"link set dev {GUEST} group {OF_GUEST}",
    ]
    there.update({name: {"group": str(number)} for name, number in groups.wanted(PART).items()})
    there.update({SHORTCUT: {"group": "default"}, "vm02": {"group": "default"}})
    assert groups.steps(PART, there, ()) == {"leave": [], "join": []}


def guest(number: int, network: str = "lan", site: int = 0):
    """A machine's port as it is in a part."""
    mac = f"02:00:{site:02x}:" + ":".join(f"{number:06x}"[at : at + 2] for at in (0, 2, 4))
    return {"device": "vm" + mac.replace(":", ""), "mac": mac, "network": network}


def test_each_machine_has_a_group_of_its_own_but_where_two_would_have_the_same():
    guests = [guest(number) for number in (0, 1, 2, 0xABCDEF, 0xFFFFFF)] + [guest(0xABCDEF, site=1)]
    assert list(groups.own(guests).values()) == [
        groups.PORTS,
        groups.PORTS,
        0x76000002,
        groups.PORTS,
        0x76FFFFFF,
        groups.PORTS,
    ]


def test_no_machine_is_asked_for_by_a_group_that_its_port_is_not_in():
    part = {**PART, "guests": [guest(100), guest(0xABCDEF), guest(0xABCDEF, "wild", site=1)]}
    asked = {int(number) for number in re.findall(r"iifgroup (\d+) ether saddr", rules(part))}
    assert asked == {groups.LINKS + 100} and asked < set(groups.wanted(part).values())


@pytest.mark.parametrize("many", [1, rules_module.FEW, rules_module.FEW + 1, 50])
def test_guests_are_compared_one_by_one_where_they_are_few_and_looked_up_where_they_are_many(many):
    guests = [guest(100 + number) for number in range(many)] + [guest(1), guest(0xABCDEF), guest(0xABCDEF, site=1)]
    came = Table(rules({**PART, "guests": guests}), "bridge", "virtuoso_traffic")
    numbers = groups.own(guests)
    for place, one in enumerate(guests, start=2):
        few = place <= many + 1 <= rules_module.FEW + 1
        own = {"iifname": one["device"], "iifgroup": str(numbers[one["device"]])}
        assert came.run("came", saddr=one["mac"], **own) == (
            "accept",
            True,
            place if few else 2 + (many if many <= rules_module.FEW else 0),
            True,
        )
        # In its group or in none yet, with a neighbour's address it is stopped, and with its own it passes.
        for known in (own, {"iifname": one["device"]}):
            assert came.run("came", saddr=OTHER, **known)[:2] == ("drop", False)
            assert all(
                came.run("came", saddr=other["mac"], **known)[0] == "drop" for other in guests if other is not one
            ), one
            assert came.run("came", saddr=one["mac"], **known)[:2] == ("accept", True)


def test_a_large_home_lists_no_pair_of_its_links_and_passes_frames_between_them():
    links = [link(f"vt{number:010x}", f"q{number}", "tree") for number in range(49)]
    forward = Table(rules({**PART, "links": links}), *KEEP)
    assert forward.sets["pairs"] == ""
    assert forward.run("keep", iifname=links[0]["device"], oifname=links[1]["device"])[0] == "accept"
    assert forward.run("keep", iifname=links[0]["device"], oifname=GUEST)[0] == "accept"


def test_a_guest_sends_from_its_own_address_only_and_is_counted_once_where_it_sends():
    assert CAME.run("came", iifname=GUEST, saddr=MAC)[:2] == ("accept", True)
    assert CAME.run("came", iifname=GUEST, saddr=OTHER)[:2] == ("drop", False)
    assert CAME.run("came", iifname=FREE, saddr=OTHER)[:2] == ("accept", True)
    for device in (TREE, SHORTCUT, MESH, STRANGER):
        assert CAME.run("came", iifname=device, saddr=MAC)[:2] == ("accept", False), device
    assert CAME.run("came", iifname=CABLE, saddr=OTHER)[:2] == ("accept", True)


def test_the_host_takes_what_links_carry_from_peers_only_and_nothing_from_networks():
    def verdict(**packet):
        return INPUT.run("input", **{"iifname": "eth0", "nfproto": "ipv4", **packet})[0]

    vxlan = {"udp dport": "4789"}
    assert verdict(saddr="192.0.2.2", **vxlan) == "accept" and verdict(saddr="192.0.2.9", **vxlan) == "drop"
    assert verdict(nfproto="ipv6", saddr="", **vxlan) == "drop"
    assert verdict(iifname="vb1", saddr="192.0.2.2") == verdict(iifname="vb2", saddr="192.0.2.2") == "drop"
    assert verdict(saddr="192.0.2.9") == "accept"
    assert (
        verdict(saddr="192.0.2.3", **{"tcp dport": "179"}) == "accept"
        and verdict(saddr="192.0.2.2", **{"tcp dport": "179"}) == "drop"
    )
    inside = Table(rules({**PART, "wireguard": {"device": "vwg0"}}), "inet", "virtuoso_overlay")
    assert inside.run("input", iifname="vwg0", nfproto="ipv6", saddr="", **vxlan)[0] == "accept"
    assert inside.run("input", iifname="vwg0", nfproto="ipv4", saddr="192.0.2.9", **vxlan)[0] == "drop"


def test_what_members_send_is_not_tracked():
    assert CAME.chains["carried"] == ["notrack"] and CAME.chains["counted"][0].startswith("notrack ")
    for port in (GUEST, FREE, TREE, SHORTCUT, MESH, CABLE):
        assert CAME.run("came", iifname=port, saddr={FREE: OTHER}.get(port, MAC))[3], port
    assert not CAME.run("came", iifname=STRANGER, saddr=MAC)[3]


def test_a_frame_on_its_common_way_meets_few_rules():
    known = {GUEST: str(OF_GUEST), TREE: str(groups.LINKS)}
    for one, other in ((GUEST, TREE), (TREE, GUEST)):
        assert FORWARD.run("keep", iifname=one, oifname=other, iifgroup=known[one], oifgroup=known[other])[2] == 1
        assert FORWARD.run("keep", iifname=one, oifname=other)[2] == 3
    assert (
        FORWARD.run("keep", iifname=GUEST, oifname=SHORTCUT)[2]
        == FORWARD.run("keep", iifname=SHORTCUT, oifname=GUEST)[2]
        == 2
    )
    assert CAME.run("came", iifname=TREE, iifgroup=known[TREE], saddr=MAC)[2] == 1
    assert (
        CAME.run("came", iifname=GUEST, iifgroup=known[GUEST], saddr=MAC)[2] == 2
        and CAME.run("came", iifname=GUEST, saddr=MAC)[2] == 3
    )
    assert not INPUT.chains.get("forward") and not INPUT.chains.get("untracked"), (
        "what goes on meets none of the rules for the host's own addresses"
    )
    assert INPUT.run("input", iifname="eth0", nfproto="ipv4", saddr="192.0.2.2", **{"udp dport": "4789"})[2] == 1
    assert FORWARD.chains["keep"][1] == "iifname . oifname @pairs accept", "links that stand apart come before names"


def test_a_part_without_networks_leaves_no_rule_and_one_without_ports_can_be_loaded():
    gone = rules({"networks": [], "links": [], "guests": [], "forwarding": [], "peers": []})
    assert "chain" not in gone and gone.count("delete table") == 3
    bare = rules({**PART, "links": [], "guests": []})
    assert "{  }" not in bare and "vmap {" not in bare
    assert Table(bare, "bridge", "virtuoso_traffic").run("came", iifname=CABLE, saddr=MAC)[:2] == ("accept", True)
