# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes long: storms of ten seconds in every topology, a way that is cut for a minute, hosts that lose their
power."""

from __future__ import annotations

import time

import pytest
from overlays import BRIDGE, HOME, HOSTS, Overlay, Pinging, lab, on_host, plug, storm
from walking import PROVIDERS, until

SHORTCUT = [list(PROVIDERS)]


@pytest.fixture(scope="module", name="overlay")
def _overlay(make_grid):
    lab("wan", "on")
    overlay = Overlay(make_grid("it-overlay"))
    overlay.clean()
    yield overlay
    overlay.grid.clean()
    overlay.clean()
    lab("wan", "off")


@pytest.mark.parametrize("shortcuts", [[], SHORTCUT], ids=["plain", "shortcut"])
@pytest.mark.parametrize("topology", ["star", "tree"])
def test_ten_seconds_of_broadcast_reach_each_site_exactly_once(overlay, topology, shortcuts):
    overlay.make(topology=topology, shortcuts=shortcuts)
    for sender in HOSTS:
        found = storm(sender, seconds=10)
        for host, row in found.items():
            assert (row["once"], row["more"]) == (0 if host == sender else row["sent"], 0), (
                topology,
                shortcuts,
                sender,
                found,
            )


def _address(host, number):
    """Give a host's test port an address on the network; it is plugged in anew where a boot took it."""
    until(
        "the bridge",
        lambda: on_host(host, f"ip link show {BRIDGE} >/dev/null 2>&1 && echo yes || true").strip() == "yes",
        deadline=10,
    )
    plug(host)
    on_host(host, f"ip addr replace 198.18.77.{number}/24 dev vhit1")
    return f"198.18.77.{number}"


@pytest.mark.parametrize("place", PROVIDERS)
def test_a_way_that_was_cut_for_a_minute_comes_back(overlay, place):
    overlay.make()
    # Ports keep their addresses: each host has its own.
    target = _address(place, 30 + PROVIDERS.index(place))
    until("the link", lambda: overlay.reached(target), deadline=10)
    lab("wan", "cut", HOME, place, "--seconds", "60")
    begin = time.monotonic()
    until("the cut", lambda: not overlay.reached(target), deadline=5)
    while time.monotonic() < begin + 60:
        time.sleep(0.1)
    overlay.back(target, "the way that was cut for a minute", time.monotonic())


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_lost_its_power_comes_back(overlay, host):
    overlay.make()
    # Home's port is its LAN itself.
    others = [other for other in PROVIDERS if other != host]
    targets = [_address(other, 10 + number) for number, other in enumerate(others)]
    lab("reboot", host, "--grace", "0")
    begin = time.monotonic()
    if host != HOME:
        targets.append(_address(host, 20))
    for target in targets:
        overlay.back(target, f"{host} after a loss of power", begin)
    again = overlay.make()
    assert not any(again.changed.values()), again.story()


@pytest.fixture(scope="module", name="names")
def _names(overlay):
    return overlay.two_machines()


def _exactly_once(sender, found):
    for host, row in found.items():
        expected = 0 if host == sender else row["sent"]
        assert (row["once"], row["more"]) == (expected, 0), (sender, found)


def test_a_shortcut_comes_and_goes_without_loss_and_is_as_fast_as_the_direct_path(overlay, names):
    one, other = names
    direct = float(on_host("provider1", "ping -q -c 20 -i 0.05 198.18.0.22").split("= ")[1].split("/")[0])
    around = overlay.ping(one, overlay.addresses[other])["rtt"]
    assert around > 1.8 * direct, "the star goes round the home"
    with Pinging(overlay, one, other) as pinging:
        overlay.make(shortcuts=[list(PROVIDERS)])
    assert pinging.lost == []
    # By way of the home it would be 40 ms. Two machines without KVM take some 1.3 ms of their own, of the 2 that are
    # allowed: on a slow host the least of a hundred pings was 21.9 to 22.9 where 22.3 are, whatever their interval, so
    # that they are asked again.
    until(
        "a round trip as the direct path's",
        lambda: overlay.ping(one, overlay.addresses[other], 120, 0.02)["rtt"] <= 1.1 * direct,
        deadline=30,
    )
    for sender in (HOME, "provider1"):
        _exactly_once(sender, storm(sender, seconds=2))
    # A machine that no bridge has heard of lately is still answered once: what comes over a shortcut isn't flooded back
    # to it.
    for host in HOSTS:
        on_host(host, f"ip link set {BRIDGE} type bridge fdb_flush")
    with Pinging(overlay, one, other) as pinging:
        time.sleep(2)
    assert pinging.lost == []
    again = overlay.make(shortcuts=[list(PROVIDERS)])
    assert not any(again.changed.values()), again.story()
    with Pinging(overlay, one, other) as pinging:
        overlay.make()
    assert pinging.lost == []
    assert overlay.ping(one, overlay.addresses[other])["rtt"] > 1.8 * direct


def test_a_rebooted_provider_comes_back_and_a_second_run_changes_nothing(overlay, names):  # pylint: disable=unused-argument
    lab("reboot", "provider2")
    begin = time.monotonic()
    plugging = (
        f"test -d /sys/class/net/{BRIDGE} && ip link add vhit0 type veth peer name vhit1 && ip link set vhit0 "
        f"master {BRIDGE} up"
        " && ip addr add 198.18.77.9/24 dev vhit1 && ip link set vhit1 up && echo done"
    )
    until("the bridge", lambda: on_host("provider2", plugging, check=False).strip() == "done", deadline=10)
    overlay.back("198.18.77.9", "the rebooted provider", begin)
    on_host("provider2", "ip link del vhit0")
    again = overlay.make()
    assert not any(again.changed.values()), again.story()


def test_a_retired_machine_leaves_no_static_entry(overlay, names):
    overlay.make(shortcuts=SHORTCUT)
    macs = {
        row["name"]: row["mac"]
        for row in overlay.grid.rows(
            "SELECT name, json_extract(facts, '$.mac') AS mac FROM host WHERE kind = 'machine'"
        )
    }
    ((place, dummy),) = overlay.grid.domains()[names[1]]
    other = next(provider for provider in PROVIDERS if provider != place)
    assert f"{macs[names[1]]} dev tap" in on_host(other, "bridge fdb show")
    traffic = overlay.grid.play("traffic").succeeded()
    assert f"{names[0]} > {names[1]}" in {row["name"] for row in traffic.report["machines"]}
    overlay.grid.play(
        "retire", virtuoso_select=[names[1]], virtuoso_networks=[overlay.network(shortcuts=SHORTCUT)]
    ).succeeded()
    for host in HOSTS:
        assert macs[names[1]] not in on_host(host, "bridge fdb show | grep static; cat /etc/virtuoso/overlay/part.json")
    assert not any(overlay.make(shortcuts=SHORTCUT).changed.values())
