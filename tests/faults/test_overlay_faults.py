# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of the overlay on a host of the lab: each leaves the host as it was, or says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import conftest
import pytest

HOST = "provider1"
NETWORK, BRIDGE = "it-faults", "vb00000000f1"
VXLAN, TAP = "vt00000000f1", "tap77001"


def part(**changed: t.Any) -> dict[str, t.Any]:
    """A network with one plain link, to nobody."""
    link = {
        "device": VXLAN,
        "network": NETWORK,
        "peer": "nobody",
        "role": "tree",
        "transport": "vxlan",
        "reason": "a test",
        "remote": "198.18.0.99",
        "vni": 16000001,
    }
    whole = {
        "networks": [{"name": NETWORK, "bridge": BRIDGE, "mtu": 1450, "spoofing": False}],
        "links": [link],
        "guests": [],
        "forwarding": [],
        "peers": ["198.18.0.99"],
    }
    return {**whole, **changed}


def bring(wanted: dict[str, t.Any], check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    return conftest.task(HOST, "virtuoso.grid.overlay", {"part": wanted, "rollback": 0, **options}, check=check)


def shell(script: str) -> str:
    done = conftest.task(HOST, "ansible.builtin.shell", {"_raw_params": script})
    assert not done.get("failed"), f"{script}: {done.get('stderr') or done.get('msg')}"
    return str(done.get("stdout", ""))


def left() -> str:
    """Whatever of an overlay is on the host: interfaces, rules, sessions, keys, timers."""
    return shell(
        "ip -br link | grep -E '^(vb|vt|vw|vwg|tap)' ; nft list tables | grep -E 'virtuoso_(overlay|traffic)';"
        "systemctl list-units --all --plain --no-legend 'virtuoso-overlay-*' | grep -v '^$';"
        "find /etc/virtuoso/overlay -type f 2>/dev/null; ls /run/virtuoso-overlay.nft 2>/dev/null; true"
    )


def role(tasks: str, directory: Path) -> None:
    """Run a part of the role on the host, with what the role sees at its beginning."""
    book = directory / f"{tasks}.yml"
    step = {
        "name": "A part of the role",
        "ansible.builtin.include_role": {"name": "virtuoso.grid.overlay", "tasks_from": tasks},
    }
    look = {
        "name": "See what is there",
        "virtuoso.grid.overlay_info": {"needs": ["nftables"]},
        "register": "overlay__there",
    }
    book.write_text(
        json.dumps([{"name": tasks, "hosts": HOST, "gather_facts": False, "become": True, "tasks": [look, step]}]),
        encoding="utf-8",
    )
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", conftest.INVENTORY, str(book)]
    done = subprocess.run(
        argv, cwd=conftest.CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope="module", autouse=True)
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[None]:
    """The role's account and units on one host, without any network of its own."""
    directory = tmp_path_factory.mktemp("role")
    before = conftest.task(HOST, "virtuoso.grid.overlay_info")["part"]
    assert before["networks"] == [], "the host has networks already: remove them first"
    role("install", directory)
    yield
    shell(f"ip link delete dev {BRIDGE} 2>/dev/null; true")
    role("absent", directory)


@pytest.fixture(autouse=True)
def _nothing_left() -> t.Iterator[None]:
    yield
    done = conftest.task(HOST, "virtuoso.grid.overlay", {"state": "absent", "rollback": 0})
    assert not done.get("failed"), done["msg"]
    assert left() == ""


def test_a_part_is_made_once_and_check_mode_says_the_same():
    foreseen, done = bring(part(), check=True), bring(part())
    assert foreseen["changed"] and foreseen["actions"] == done["actions"] and BRIDGE in foreseen["diff"]["after"]
    assert not bring(part())["changed"]
    # What was made by hand in between is put right.
    shell(f"ip link set dev {VXLAN} nomaster; nft flush ruleset; true")
    again = bring(part())
    assert (
        again["changed"]
        and any(VXLAN in action for action in again["actions"])
        and "load the rules" in again["actions"]
    )


def test_a_foreign_bridge_of_the_same_name_is_left_alone():
    shell(f"ip link add {BRIDGE} type bridge && ip link set {BRIDGE} mtu 1234")
    try:
        done = bring(part())
        assert done["failed"] and done["failure"]["code"] == "foreign_interface" and BRIDGE in done["msg"]
        assert "mtu 1234" in shell(f"ip link show {BRIDGE}") and VXLAN not in shell("ip -br link")
    finally:
        shell(f"ip link delete dev {BRIDGE}")


def test_a_step_that_fails_is_gone_back_on():
    assert bring(part())["changed"]
    broken = {**part()["links"][0], "device": "vt00000000f2"}
    # The kernel refuses a second device of the same VNI.
    done = bring(part(links=[*part()["links"], broken]))
    assert done["failed"] and done["failure"]["code"] == "overlay_failed"
    assert "vt00000000f2" not in shell("ip -br link") and not bring(part())["changed"]


def test_a_host_goes_back_when_the_controller_stays_away_and_not_when_it_comes():
    assert bring(part(), rollback=2)["changed"]
    end = time.monotonic() + 30
    while left() and time.monotonic() < end:
        time.sleep(0.5)
    assert left() == ""
    bring(part(), rollback=60)
    assert "virtuoso-overlay-rollback.timer" in shell("systemctl list-timers --all --no-legend")
    assert conftest.task(HOST, "virtuoso.grid.overlay", {"state": "confirmed"})["actions"] == ["confirm"]
    assert "virtuoso-overlay-rollback" not in shell("systemctl list-timers --all --no-legend")
    assert VXLAN in shell("ip -br link")


def test_two_plays_at_once_take_turns():
    # Both are whole; which is the last is of no matter.
    one, other = json.dumps({"part": part(), "rollback": 0}), json.dumps({"part": part(links=[]), "rollback": 0})
    with (
        conftest.background(HOST, "virtuoso.grid.overlay", one) as first,
        conftest.background(HOST, "virtuoso.grid.overlay", other) as second,
    ):
        said = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert all(process.returncode == 0 for process in (first, second)), said
    now = conftest.task(HOST, "virtuoso.grid.overlay_info")
    assert now["part"]["links"] in ([], part()["links"]) and not bring(now["part"])["changed"]


def test_another_host_key_is_refused_and_the_journal_says_so_without_secrets():
    real = " ".join(shell("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
    wrong = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKAvoXb0sbRv8LMyLVoHhxJgIKBoRkx3fr7prbzJlcD0"
    link = {
        "device": TAP,
        "network": NETWORK,
        "peer": "self",
        "role": "tree",
        "transport": "ssh",
        "reason": "a test",
        "remote": "127.0.0.1",
        "port": 22,
        "end": "client",
    }
    wanted = part(links=[{**link, "host_key": wrong}], peers=[])
    keys = conftest.task(HOST, "virtuoso.grid.overlay", {"state": "prepared", "part": wanted})["keys"]
    assert keys[TAP].startswith("ssh-ed25519 ") and real != wrong
    bring(wanted)
    end, said = time.monotonic() + 20, ""
    while "REMOTE HOST IDENTIFICATION HAS CHANGED" not in said and time.monotonic() < end:
        said = shell(f"journalctl -o cat -u virtuoso-overlay-ssh@{TAP} -n 50")
    assert "Host key verification failed" in said
    secret = shell(f"sed -n 2p /etc/virtuoso/overlay/ssh/{TAP}.key")
    assert len(secret) > 20 and secret not in said + shell("ps -eo args")
    assert shell(f"stat -c '%a %U' /etc/virtuoso/overlay/ssh/{TAP}.key") == "600 virtuoso-tap"


def test_a_guest_can_not_take_anothers_address_nor_reach_the_host():
    mac, other, device = "02:aa:00:00:00:f1", "02:aa:00:00:00:f2", "vm02aa000000f1"
    guest = {"device": device, "mac": mac, "network": NETWORK}
    bring(part(guests=[guest]))
    ping = "ip netns exec it-faults ping -c1 -W1"
    try:
        shell(
            f"ip netns add it-faults; ip link add {device} type veth peer name e0 netns it-faults; ip -n "
            f"it-faults link set e0 address {mac} up;"
            f"ip -n it-faults addr add 198.18.0.250/24 dev e0; ip link set {device} master {BRIDGE} up"
        )
        # The host's own address is in the guest's network, and yet nobody answers.
        assert "0 received" in shell(f"{ping} 198.18.0.21; true")
        shell(
            f"ip -n it-faults link set e0 down; ip -n it-faults link set e0 address {other} up; {ping} "
            f"198.18.0.77; true"
        )
        counted = shell("nft list chain bridge virtuoso_traffic guarded")
        assert int(counted.split("packets ")[1].split()[0]) > 0
        matrix = conftest.task(HOST, "virtuoso.grid.overlay_info")["traffic"]
        assert {row["source"] for row in matrix} == {mac} and all(row["packets"] > 0 for row in matrix)
    finally:
        shell(f"ip netns delete it-faults; ip link delete dev {device} 2>/dev/null; true")
