# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network that must be encrypted: WireGuard, here the package wireguard-go, where UDP passes, SSH where it doesn't.
One story, in its order."""

from __future__ import annotations

import json
import time

import pytest
from overlays import BRIDGE, HOME, HOME_NETWORKS, HOSTS, Overlay, lab, leftovers, on_host, plug
from walking import until

PLACE = "provider1"
TARGET, AFTER_BOOT = "198.18.77.9", "198.18.77.10"
PATTERN = "c0ffee5ca1ab1e00"
ENCRYPTED = {"encrypted": True}
OPTION = {"virtuoso_overlay_wireguard": "userspace"}

# What of the frames on a device has the pattern in it, and how many there were.
SNIFF = f"""
import socket, sys, time
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind((sys.argv[1], 0)); link.settimeout(0.2)
end, seen, plain, pattern = time.monotonic() + float(sys.argv[2]), 0, 0, bytes.fromhex("{PATTERN}")
while time.monotonic() < end:
    try:
        frame = link.recv(65535)
    except OSError:
        continue
    seen += 1
    plain += pattern in frame
print(seen, plain)
"""


@pytest.fixture(scope="module", name="overlay")
def _overlay(make_grid):
    lab("wan", "on", "--firewall", f"{HOME}=open")
    overlay = Overlay(make_grid("it-wireguard"))
    overlay.clean()
    yield overlay
    overlay.grid.clean()
    overlay.clean()
    lab("wan", "off")


def _make(overlay, present=True):
    networks = [overlay.network(**ENCRYPTED)] if present else []
    homes = HOME_NETWORKS if present else []
    return overlay.grid.play("overlay", virtuoso_networks=networks, virtuoso_home_networks=homes, **OPTION).succeeded()


def test_wireguard_is_taken_where_udp_passes_and_ssh_where_not(overlay):
    run = _make(overlay)
    chosen = {row["name"]: row for row in run.report["machines"]}
    assert chosen[f"it-lan {HOME} - {PLACE}"]["transport"] == "wireguard"
    assert "the network must be encrypted" in chosen[f"it-lan {HOME} - {PLACE}"]["reason"]
    assert (
        chosen[f"it-lan {HOME} - provider2"]["transport"] == "ssh"
        and "no UDP" in chosen[f"it-lan {HOME} - provider2"]["reason"]
    )
    plug(PLACE)
    on_host(PLACE, f"ip addr replace {TARGET}/24 dev vhit1")
    overlay.back(TARGET, "the encrypted link", time.monotonic())
    assert not any(_make(overlay).changed.values())


def test_what_is_sent_can_not_be_read_on_the_way(overlay):
    assert overlay.reached(TARGET)
    on_host(PLACE, f"cat >/root/it_sniff.py <<'END'\n{SNIFF}\nEND")
    counts = {}
    for device in ("vhit1", "eth0"):
        on_host(HOME, f"systemd-run -q --collect ping -c 40 -i 0.1 -p {PATTERN} {TARGET}")
        counts[device] = tuple(map(int, on_host(PLACE, f"python3 /root/it_sniff.py {device} 3").split()))
    on_host(PLACE, "rm /root/it_sniff.py")
    assert counts["vhit1"][1] > 20 and counts["eth0"][0] > 20 and counts["eth0"][1] == 0, counts


def test_the_private_key_is_in_its_file_only(overlay):  # pylint: disable=unused-argument
    for host in (HOME, PLACE):
        secret = on_host(host, "cat /etc/virtuoso/overlay/wireguard.key").strip()
        assert (
            len(secret) == 44
            and on_host(host, "stat -c '%a %U' /etc/virtuoso/overlay/wireguard.key").strip() == "600 root"
        )
        elsewhere = on_host(
            host,
            "cat /etc/virtuoso/overlay/part.json /etc/virtuoso/overlay/wireguard.conf; ps -ww -eo args; "
            "journalctl -o cat -n 2000",
        )
        assert secret not in elsewhere and secret not in json.dumps(overlay.grid.rows("SELECT * FROM link"))


def test_it_comes_back_when_it_was_killed_and_after_a_boot(overlay):
    on_host(PLACE, "systemctl kill --signal=KILL virtuoso-overlay-wireguard.service")
    overlay.back(TARGET, "the killed tunnel", time.monotonic())
    lab("reboot", PLACE, "--grace", "0")
    begin = time.monotonic()
    until(
        "the bridge",
        lambda: on_host(PLACE, f"ip link show {BRIDGE} >/dev/null 2>&1 && echo yes || true").strip() == "yes",
        deadline=10,
    )
    # Another address: the port has another MAC address now, and home would ask for the old one first.
    plug(PLACE)
    on_host(PLACE, f"ip addr replace {AFTER_BOOT}/24 dev vhit1")
    overlay.back(AFTER_BOOT, "the host that lost its power", begin)
    assert not any(_make(overlay).changed.values())


def test_without_udp_it_becomes_an_ssh_link(overlay):
    lab("wan", "on", "--firewall", f"{HOME}=closed")
    run = _make(overlay)
    assert {row["transport"] for row in run.report["machines"]} == {"ssh"}
    overlay.back(AFTER_BOOT, "the link by SSH", time.monotonic())
    assert on_host(PLACE, "ip -br link show type vxlan").strip() == ""


def test_nothing_of_it_stays(overlay):
    lab("wan", "on", "--firewall", f"{HOME}=open")
    _make(overlay)
    for host in HOSTS:
        on_host(host, "ip link del vhit0 2>/dev/null; true")
    _make(overlay, present=False)
    assert {host: leftovers(host) for host in HOSTS} == dict.fromkeys(HOSTS, "")
