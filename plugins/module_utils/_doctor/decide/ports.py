# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes between hosts, of what each of them tried (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.host import clock_offset
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import Finding, finding, well
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import (
    IMAGES,
    LISTEN,
    MIGRATION,
    NBD,
    Attempt,
    Firewall,
    Host,
    HostFacts,
)

WANTED = "10808-10872 and 49152-49215"
_OVERLAP = 1.0
"""Seconds that two hosts must have listened at the same time for a refusal to say anything."""


def judge_ports(hosts: t.Sequence[Host]) -> t.List[Finding]:
    """One finding or more for each host that could try."""
    known = {host["name"]: host for host in hosts}
    found: t.List[Finding] = []
    admitted = _admitted(hosts)
    for host in hosts:
        facts = host["facts"]
        if facts is None:
            continue
        mine: t.List[Finding] = []
        tried = 0
        for peer in host["peers"]:
            other = known.get(peer["name"])
            attempts = facts["ports"]["attempts"].get(peer["name"], {})
            if other is None or not attempts or other["facts"] is None:
                continue
            tried += 1
            mine += _pair(host, facts, other, other["facts"], attempts, peer["ports"])
        if tried:
            mine = mine or [well("ports", host["name"], f"{tried} other host{'s' if tried > 1 else ''} reached")]
        else:
            mine = [finding("no_peers", host["name"], "no other host to try")]
        found += mine
        if set(host["roles"]) & {"provider", "image_server"}:
            found.append(judge_firewall(host["name"], facts["firewall"], admitted.get(host["name"])))
    return found


def _admitted(hosts: t.Sequence[Host]) -> t.Dict[str, bool]:
    """Of each host that others tried: whether its ports were open to all of them."""
    answers: t.Dict[str, bool] = {}
    for host in hosts:
        attempts = host["facts"]["ports"]["attempts"] if host["facts"] else {}
        for peer, tried in attempts.items():
            mine = [each["result"] == "open" for port, each in tried.items() if int(port) in LISTEN]
            if mine:
                answers[peer] = all(mine) and answers.get(peer, True)
    return answers


def _together(host: Host, facts: HostFacts, other: Host, theirs: HostFacts) -> bool:
    """Whether both listened at the same time, by the controller's clock."""
    spans = []
    for which, what in ((host, facts), (other, theirs)):
        off = (which["way"]["offset_min"] + which["way"]["offset_max"]) / 2 if clock_offset(which) else 0.0
        spans.append((what["ports"]["begin"] - off, what["ports"]["end"] - off))
    (begin, end), (their_begin, their_end) = spans
    return min(end, their_end) - max(begin, their_begin) >= _OVERLAP


def _pair(
    host: Host,
    facts: HostFacts,
    other: Host,
    theirs: HostFacts,
    attempts: t.Mapping[str, Attempt],
    wanted: t.Sequence[int],
) -> t.List[Finding]:
    name, peer = host["name"], other["name"]
    unresolved = next((each for each in attempts.values() if each["result"] == "unresolved"), None)
    if unresolved:
        address = next(each["address"] for each in host["peers"] if each["name"] == peer)
        return [finding("peer_unresolved", name, f"{peer}: the name {address} is not resolved here", peer=peer)]
    shut = {int(port): each for port, each in attempts.items() if each["result"] != "open"}
    # A refusal means nothing where nobody listened.
    listening = theirs["ports"]["listening"]
    if any(each["result"] == "refused" and port in LISTEN for port, each in shut.items()):
        if not _together(host, facts, other, theirs):
            return [finding("ports_unprobed", name, f"{peer} did not listen at the same time")]
        shut = {
            port: each
            for port, each in shut.items()
            if each["result"] != "refused" or port not in LISTEN or listening.get(str(port))
        }
    ssh = next((port for port in wanted if port not in LISTEN), 22)
    if IMAGES in wanted:
        return _shut(name, peer, shut, ssh)
    back = theirs["ports"]["attempts"].get(name, {})
    # SSH carries a network whichever end connects.
    if ssh not in shut or any(each["result"] == "open" for each in back.values()):
        return []
    return [finding("ssh_blocked", name, _told(peer, "SSH", shut[ssh], ssh), peer=peer)]


def _told(peer: str, what: str, attempt: Attempt, port: int) -> str:
    said = {"timeout": "no answer", "refused": "refused"}.get(attempt["result"], attempt["error"] or "it failed")
    return f"{what} to {peer}, TCP {port}: {said}"


def _shut(name: str, peer: str, shut: t.Mapping[int, Attempt], ssh: int) -> t.List[Finding]:
    """What each port that is shut means."""
    found = []
    if IMAGES in shut:
        both = ssh in shut
        told = _told(peer, "images", shut[IMAGES], IMAGES) + (f"; nor by SSH, TCP {ssh}" if both else "")
        found.append(finding("images_blocked" if both else "images_tls_blocked", name, told, peer=peer))
    if MIGRATION in shut:
        told = _told(peer, "live migration", shut[MIGRATION], MIGRATION)
        found.append(finding("migration_blocked", name, told, peer=peer))
    if NBD in shut:
        found.append(finding("nbd_blocked", name, _told(peer, "disks by NBD", shut[NBD], NBD), peer=peer))
    return found


def judge_firewall(name: str, firewall: Firewall, admitted: t.Optional[bool]) -> Finding:
    """A firewall that drops by default does no harm where its ports were seen to be open.

    :param admitted: whether they were; none where nobody tried.
    """
    if not firewall["readable"]:
        return finding("firewall_unread", name, "its rules can't be read: neither nft nor iptables answers")
    chains = ", ".join(firewall["input"])
    if not chains:
        return well("firewall", name, "nothing drops by default")
    if admitted:
        return well("firewall", name, f"drops by default ({chains}), and admits the grid's ports")
    return finding("firewall_drops", name, f"drops by default: {chains}", ports=WANTED)
