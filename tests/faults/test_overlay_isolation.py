# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two networks over the same hosts, with the same MAC and IP addresses in both: neither gets a frame of the other, nor
of the hosts' own LAN."""

from __future__ import annotations

import concurrent.futures
import json
import random

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import model
from overlays import FRAMES, HOME, HOME_NETWORKS, HOSTS, NETWORK, Overlay, on_host
from walking import PROVIDERS, until

OTHER = "it-other"
SPACES = {NETWORK: "ita", OTHER: "itb"}
NUMBER = {host: number for number, host in enumerate(HOSTS, start=1)}
COUNT = 300


def _leave(host):
    on_host(
        host,
        "".join(f"ip netns del {space} 2>/dev/null; ip link del vh{space}0 2>/dev/null;" for space in SPACES.values())
        + "rm -f /root/it_frames.py",
    )


def _join(host, network):
    """What looks like a machine, which the host's number tells: on both networks it has the same addresses."""
    space, number = SPACES[network], NUMBER[host]
    on_host(
        host,
        f"set -e; ip netns add {space}; ip link add vh{space}0 type veth peer name e0 netns {space};"
        f"ip link set vh{space}0 mtu 1400 master {model.bridge_name(network)} up;"
        f"ip -n {space} link set e0 mtu 1400 address 02:00:5e:00:53:{number:02x} up; ip -n {space} addr add "
        f"198.18.78.{number}/24 dev e0",
    )


@pytest.fixture(scope="module", name="overlay")
def _overlay(make_grid):
    overlay = Overlay(make_grid("it-isolation"))
    overlay.clean()
    try:
        networks = [overlay.network(), {"name": OTHER, "home": HOME}]
        overlay.grid.play("overlay", virtuoso_networks=networks, virtuoso_home_networks=HOME_NETWORKS).succeeded()
        text = FRAMES.read_text(encoding="utf-8")
        for host in HOSTS:
            on_host(host, f"cat >/root/it_frames.py <<'END_OF_FRAMES'\n{text}\nEND_OF_FRAMES")
            for network in SPACES:
                _join(host, network)
        yield overlay
    finally:
        for host in HOSTS:
            _leave(host)
        overlay.grid.clean()
        overlay.clean()


def _answered(network, here, there):
    target = f"198.18.78.{NUMBER[there]}"
    return (
        on_host(
            here, f"ip netns exec {SPACES[network]} ping -c 3 -i 0.2 -W 1 {target} | grep -c 'bytes from' || true"
        ).strip()
        == "3"
    )


def _heard(sender, within, where):
    """What is heard of broadcast that a host sends from a device.
    :param within: the network that it is sent in, or ``None`` for the LAN of the hosts.

    :param where: pairs of a host and a network, or ``None``. :returns: by these pairs, how many different frames came.
    """
    tag = random.getrandbits(32)

    def run(host, network, words):
        inside = f"ip netns exec {SPACES[network]} " if network else ""
        return on_host(
            host, f"{inside}python3 /root/it_frames.py {words.replace('DEVICE', 'e0' if network else 'eth0')}"
        )

    with concurrent.futures.ThreadPoolExecutor(len(where)) as pool:
        listening = {place: pool.submit(run, *place, f"count DEVICE {COUNT} 8 {tag}") for place in where}
        for host in {place[0] for place in where}:
            wanted = sum(place[0] == host for place in where)
            ready = f"pgrep -fc '^python3 /root/it_frames.py count .* {tag}$' || true"
            until(
                "those who listen",
                lambda host=host, wanted=wanted, ready=ready: int(on_host(host, ready)) >= wanted,
                deadline=10,
                interval=0.1,
            )
        run(sender, within, f"send DEVICE {COUNT} 500 {tag}")
        told = {place: json.loads(future.result()) for place, future in listening.items()}
    return {place: row["once"] + row["more"] for place, row in told.items()}


def test_the_same_addresses_are_different_machines(overlay):  # pylint: disable=unused-argument
    for network in SPACES:
        for here, there in ((PROVIDERS[0], PROVIDERS[1]), (HOME, PROVIDERS[0])):
            until(
                f"{there} in {network}",
                lambda network=network, here=here, there=there: _answered(network, here, there),
                deadline=15,
            )
    on_host(PROVIDERS[1], f"ip -n {SPACES[NETWORK]} link set e0 down")
    try:
        assert not _answered(NETWORK, PROVIDERS[0], PROVIDERS[1]) and _answered(OTHER, PROVIDERS[0], PROVIDERS[1])
    finally:
        on_host(PROVIDERS[1], f"ip -n {SPACES[NETWORK]} link set e0 up")


@pytest.mark.parametrize("sender", HOSTS)
def test_broadcast_stays_in_its_network(overlay, sender):  # pylint: disable=unused-argument
    others = [host for host in HOSTS if host != sender]
    inside = [(host, NETWORK) for host in others]
    outside = [*((host, OTHER) for host in HOSTS), *((host, None) for host in others)]
    heard = _heard(sender, NETWORK, inside + outside)
    assert heard == {**dict.fromkeys(inside, COUNT), **dict.fromkeys(outside, 0)}


def test_nothing_of_the_hosts_lan_comes_in(overlay):  # pylint: disable=unused-argument
    seen = [(host, None) for host in PROVIDERS]
    unseen = [(host, network) for host in HOSTS for network in SPACES]
    assert _heard(HOME, None, seen + unseen) == {**dict.fromkeys(seen, COUNT), **dict.fromkeys(unseen, 0)}
