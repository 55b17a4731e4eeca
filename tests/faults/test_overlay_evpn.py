# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network of topology evpn over a Debian 12 home and provider and a Debian 13 provider: FRR 8.4 and 10. One story, in
its order."""

from __future__ import annotations

import re
import time

import conftest
import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import model
from overlays import BRIDGE, HOME, HOME_NETWORKS, HOSTS, NETWORK, Overlay, Pinging, lab, leftovers, on_host, plug, storm
from walking import PROVIDERS, until

EVPN = {"topology": "evpn"}
MESH = model.mesh_device(NETWORK)
UNIT = "virtuoso-overlay-frr.service"
NUMBER = {HOME: 11, "provider1": 21, "provider2": 22}
MOVING = "02:00:5e:00:53:77"
FOREIGN = "router ospf\n network 192.0.2.0/24 area 0\n"


@pytest.fixture(scope="module", name="overlay")
def _overlay(make_grid):
    overlay = Overlay(make_grid("it-evpn"))
    overlay.clean()
    yield overlay
    overlay.grid.clean()
    overlay.clean()


def _address(host):
    """Give a host's test port an address on the network."""
    until(
        "the bridge",
        lambda: on_host(host, f"ip link show {BRIDGE} >/dev/null 2>&1 && echo yes || true").strip() == "yes",
        deadline=15,
    )
    plug(host)
    on_host(host, f"ip addr replace 198.18.77.{NUMBER[host]}/24 dev vhit1")
    return f"198.18.77.{NUMBER[host]}"


def _ping(host, target, count=10, interval=0.02):
    """How many of a ping's packets came back, none twice."""
    told = on_host(host, f"ping -q -c {count} -i {interval} -W 1 -I vhit1 {target} || true")
    assert "duplicates" not in told, told
    return int(re.search(r"(\d+) received", told).group(1))


def _mesh(host):
    (link,) = [
        link for link in conftest.task(host, "virtuoso.grid.overlay_info")["links"] if link["transport"] == "evpn"
    ]
    return link


def _mac(host):
    return on_host(host, "cat /sys/class/net/vhit1/address").strip()


def _told(host, mac):
    """Where BGP told a host that a MAC address is."""
    return {row["vtep"] for row in _mesh(host)["macs"] if row["mac"] == mac}


def _carried(host):
    """Frames that came to a host by the mesh, and that it sent by it."""
    return sum(int(word) for word in on_host(host, f"cat /sys/class/net/{MESH}/statistics/[rt]x_packets").split())


def _exactly_once(sender, found):
    for host, row in found.items():
        assert (row["once"], row["more"]) == (0 if host == sender else row["sent"], 0), (sender, found)


def test_check_mode_prints_the_plan_and_makes_nothing(overlay):
    run = overlay.make("--check", "--diff", **EVPN)
    assert {row["transport"] for row in run.report["machines"]} == {"evpn"} and len(run.report["machines"]) == 2
    assert all(leftovers(host) == "" for host in HOSTS)


def test_providers_reach_each_other_directly_and_nothing_of_it_comes_by_the_home(overlay):
    overlay.make(**EVPN)
    addresses = {host: _address(host) for host in HOSTS}
    for one in HOSTS:
        for other in set(HOSTS) - {one}:
            until(
                f"{one} reaches {other}", lambda one=one, other=other: _ping(one, addresses[other], 1) == 1, deadline=10
            )
    before = _carried(HOME)
    assert _ping("provider1", addresses["provider2"], 200, 0.01) == 200
    # Neither forwarded nor flooded: a known address's frames go to its host alone. What is left is what hosts say to
    # all by themselves.
    assert _carried(HOME) - before < 40, "of 400 frames"


def test_overlay_info_tells_sessions_hosts_and_addresses(overlay):  # pylint: disable=unused-argument
    for host in HOSTS:
        link = _mesh(host)
        assert link["state"] == "up" and link["vni"] == model.network_vni(NETWORK) and link["role"] == "evpn", link
        assert {peer["peer"] for peer in link["vteps"]} == set(HOSTS) - {host}, link
        assert [session["state"] for session in link["sessions"]] == ["Established"] * (2 if host == HOME else 1), link
        for other in set(HOSTS) - {host}:
            assert _told(host, _mac(other)) == {f"198.18.0.{NUMBER[other]}"}, (host, other)
    assert (
        on_host(HOME, "ss -Hltn sport = :179").strip()
        and not on_host(HOME, "ss -Hltn | grep -E ':260[0-9] ' || true").strip()
    )


def test_a_second_run_changes_nothing(overlay):
    again = overlay.make(**EVPN)
    assert not any(again.changed.values()), again.story()


@pytest.mark.parametrize("sender", HOSTS)
def test_ten_seconds_of_broadcast_reach_each_site_exactly_once(overlay, sender):  # pylint: disable=unused-argument
    _exactly_once(sender, storm(sender, seconds=10))


def test_a_moved_address_is_found_again_within_two_seconds(overlay):  # pylint: disable=unused-argument
    for host in PROVIDERS:
        on_host(host, "ip link del vhit0 2>/dev/null; true")
    take = f"ip link set vhit1 address {MOVING}; ip addr replace 198.18.77.77/24 dev vhit1"
    # The host's last word before it speaks for itself: as a machine that was moved, it is announced.
    speak = "ping -c 1 -W 1 -I vhit1 198.18.77.1 >/dev/null || true"
    seconds = []
    for here, there in (PROVIDERS, PROVIDERS[::-1], PROVIDERS):
        plug(here)
        on_host(here, f"{take}; {speak}")
        until(
            "it is there",
            lambda: on_host(HOME, "ping -c 1 -W 1 198.18.77.77 >/dev/null && echo yes || true").strip() == "yes",
            deadline=10,
        )
        plug(there)
        on_host(HOME, "ping -D -O -i 0.01 198.18.77.77 >/root/it_move.txt 2>&1 & echo $! >/root/it_move.pid")
        until("the ping", lambda: "bytes from" in on_host(HOME, "cat /root/it_move.txt"), deadline=10, interval=0.1)
        on_host(here, "ip link del vhit0")
        on_host(there, f"{take}; {speak}")
        moved = float(on_host(HOME, "date +%s.%N"))
        until("it answers again", lambda moved=moved: _answered_after(moved), deadline=10, interval=0.2)
        on_host(HOME, "kill -INT $(cat /root/it_move.pid); rm /root/it_move.pid")
        text = on_host(HOME, "cat /root/it_move.txt; rm /root/it_move.txt")
        answered = [float(stamp) for stamp in re.findall(r"\[([\d.]+)\] \d+ bytes from", text)]
        seconds.append(max(later - before for before, later in zip(answered, answered[1:])))
        on_host(there, "ip link del vhit0")
    print(f"longest silence of a moved address: {', '.join(f'{each:.2f}' for each in seconds)} s")
    assert max(seconds) < 2, seconds


def _answered_after(moment):
    stamps = re.findall(r"\[([\d.]+)\] \d+ bytes from", on_host(HOME, "tail -n 3 /root/it_move.txt"))
    return bool(stamps) and float(stamps[-1]) > moment + 0.5


@pytest.mark.parametrize("program", ["bgpd", "zebra"])
@pytest.mark.parametrize("host", ["provider1", HOME])
def test_a_killed_daemon_comes_back_by_itself(overlay, host, program):  # pylint: disable=unused-argument
    addresses = {each: _address(each) for each in HOSTS}
    until("all are there", lambda: _ping("provider1", addresses["provider2"], 1) == 1, deadline=10)
    old = on_host(host, f"pgrep -f '^/usr/lib/frr/{program} -N virtuoso'").split()
    on_host(host, f"kill -KILL {old[0]}")
    begin = time.monotonic()
    until(
        "another one",
        lambda: set(on_host(host, f"pgrep -f '^/usr/lib/frr/{program} -N virtuoso' || true").split()) - set(old),
        deadline=10,
    )
    until(
        "all sites again",
        lambda: all(len(_mesh(each)["vteps"]) == 2 and _mesh(each)["state"] == "up" for each in HOSTS),
        deadline=10,
    )
    until(
        "the way",
        lambda: _ping("provider1", addresses["provider2"], 1) == 1 and _ping(HOME, addresses["provider1"], 1) == 1,
        deadline=10,
    )
    print(f"{host}: {program} killed, all back after {time.monotonic() - begin:.1f} s")


def test_after_that_a_run_changes_nothing(overlay):
    again = overlay.make(**EVPN)
    assert not any(again.changed.values()), again.story()


@pytest.mark.parametrize("host", ["provider2", HOME])
def test_a_host_that_lost_its_power_comes_back(overlay, host):
    lab("reboot", host, "--grace", "0")
    begin = time.monotonic()
    addresses = {each: _address(each) for each in HOSTS}
    for one, other in ((HOME, "provider1"), (HOME, "provider2"), ("provider1", "provider2")):
        until(f"{one} reaches {other}", lambda one=one, other=other: _ping(one, addresses[other], 1) == 1, deadline=20)
    print(f"{host} lost its power, all back after {time.monotonic() - begin:.1f} s")
    again = overlay.make(**EVPN)
    assert not any(again.changed.values()), again.story()


def test_a_second_network_comes_and_goes_while_bgp_runs(overlay):
    addresses = {host: _address(host) for host in PROVIDERS}
    second = {"name": "it-second", "home": "provider2", "topology": "evpn"}
    with_both = [overlay.network(**EVPN), second]
    started = {host: on_host(host, f"systemctl show -p ActiveEnterTimestampMonotonic --value {UNIT}") for host in HOSTS}
    on_host(
        "provider1",
        f"ping -q -i 0.02 -I vhit1 {addresses['provider2']} >/root/it_ping.txt 2>&1 & echo $! >/root/it_ping.pid",
    )
    overlay.grid.play("overlay", virtuoso_networks=with_both, virtuoso_home_networks=HOME_NETWORKS).succeeded()
    other = model.mesh_device("it-second")
    for host in HOSTS:
        ends = [
            link for link in conftest.task(host, "virtuoso.grid.overlay_info")["links"] if link["transport"] == "evpn"
        ]
        assert {link["device"]: len(link["vteps"]) for link in ends} == {MESH: 2, other: 2}, ends
    again = overlay.grid.play("overlay", virtuoso_networks=with_both, virtuoso_home_networks=HOME_NETWORKS).succeeded()
    assert not any(again.changed.values()), again.story()
    overlay.make(**EVPN)
    told = on_host(
        "provider1", "kill -INT $(cat /root/it_ping.pid); sleep 0.3; cat /root/it_ping.txt; rm /root/it_ping.*"
    )
    sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", told).groups())
    assert sent - received <= 1 and sent > 200, told
    assert started == {
        host: on_host(host, f"systemctl show -p ActiveEnterTimestampMonotonic --value {UNIT}") for host in HOSTS
    }, "FRR was told, not restarted"
    for host in HOSTS:
        said = on_host(host, "vtysh -N virtuoso -c 'show running-config' 2>/dev/null")
        assert str(model.network_vni("it-second")) not in said and str(model.network_vni(NETWORK)) in said
        assert said.count("remote-as") == (2 if host == HOME else 1), said
        assert len(_mesh(host)["vteps"]) == 2


def test_from_star_to_evpn_and_back_no_path_is_lost(overlay):
    overlay.make()
    names = overlay.two_machines()
    one, other = names
    for fields in (EVPN, {}, EVPN):
        with Pinging(overlay, one, other) as pinging:
            overlay.make(**fields)
            time.sleep(2)
        print(f"{fields or 'star'}: lost {pinging.lost}")
        assert pinging.lost == []
        for sender in (HOME, "provider1"):
            _exactly_once(sender, storm(sender, seconds=2))
    again = overlay.make(**EVPN)
    assert not any(again.changed.values()), again.story()
    overlay.grid.play("retire", virtuoso_select=list(names), virtuoso_networks=[overlay.network(**EVPN)]).succeeded()


def test_a_host_without_udp_hangs_off_the_home(overlay):
    lab("wan", "on", "--firewall", f"{HOME}=open")
    try:
        run = overlay.make(**EVPN)
        chosen = {row["name"]: row for row in run.report["machines"]}
        assert chosen[f"{NETWORK} {HOME} - provider1"]["transport"] == "evpn"
        assert (
            chosen[f"{NETWORK} {HOME} - provider2"]["transport"] == "ssh"
            and "no UDP" in chosen[f"{NETWORK} {HOME} - provider2"]["reason"]
        )
        addresses = {host: _address(host) for host in HOSTS}
        for other in (HOME, "provider1"):
            until(
                f"provider2 reaches {other}",
                lambda other=other: _ping("provider2", addresses[other], 1) == 1,
                deadline=20,
            )
        for sender in HOSTS:
            _exactly_once(sender, storm(sender, seconds=10))
        assert on_host("provider2", f"systemctl is-active {UNIT} || true").strip() != "active"
        assert not any(overlay.make(**EVPN).changed.values())
    finally:
        lab("wan", "off")
    overlay.make(**EVPN)
    until("provider2 is on the mesh", lambda: len(_mesh("provider2")["vteps"]) == 2, deadline=10)
    assert _ping("provider2", addresses["provider1"], 20) == 20


def test_nothing_of_it_stays_on_any_host(overlay):
    for host in HOSTS:
        on_host(host, "ip link del vhit0 2>/dev/null; rm -f /root/it_frames.py; true")
    overlay.make(present=False)
    assert {host: leftovers(host) for host in HOSTS} == dict.fromkeys(HOSTS, "")
    said = "pgrep -f '^/usr/lib/frr/'; ls -d /run/frr/virtuoso 2>/dev/null; "
    said += "systemctl is-active frr.service | grep -v inactive; grep -rl virtuoso /etc/frr; true"
    assert {host: on_host(host, said).strip() for host in HOSTS} == dict.fromkeys(HOSTS, "")


def test_an_frr_of_somebody_elses_is_left_alone(overlay):
    on_host(
        "provider1",
        f"cp -p /etc/frr/frr.conf /root/it_frr.conf; printf '{FOREIGN}' >>/etc/frr/frr.conf; md5sum /etc/frr/* "
        f">/root/it_frr.md5",
    )
    try:
        run = overlay.start(**EVPN).wait()
        (told,) = run.results("Say what can't be planned").values()
        assert (
            run.returncode != 0 and told["failure"]["codes"] == ["foreign_frr"] and "1 of 1 networks" in told["msg"]
        ), run.story()
        assert "OK" in on_host("provider1", "md5sum -c /root/it_frr.md5") and all(
            leftovers(host) == "" for host in HOSTS
        )
    finally:
        on_host("provider1", "cp -p /root/it_frr.conf /etc/frr/frr.conf; rm /root/it_frr.*")
    overlay.make(present=False)
