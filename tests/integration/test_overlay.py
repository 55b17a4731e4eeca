# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine is on the user's own LAN, wherever it runs: home behind a firewall, no UDP at one provider, 100 Mbit/s
and 20 ms between the sites.

The tests are one story on one network and two machines, in their order; the long ones are in tests/faults.
"""

from __future__ import annotations

import time

import pytest
from overlays import HOME, HOSTS, LAN, NETWORK, Overlay, lab, leftovers, on_host, storm
from walking import PROVIDERS, until

pytestmark = pytest.mark.usefixtures("_wan")


@pytest.fixture(scope="module", name="_wan")
def _wan_fixture():
    lab("wan", "on")
    yield
    lab("wan", "off")


@pytest.fixture(scope="module", name="overlay")
def _overlay(make_grid, _wan):
    overlay = Overlay(make_grid("it-overlay"))
    overlay.clean()
    yield overlay
    overlay.grid.clean()
    overlay.clean()


@pytest.fixture(scope="module", name="names")
def _names(overlay):
    return overlay.two_machines()


def test_machines_get_their_addresses_and_names_at_home_and_reach_each_other(overlay, names):
    leases = on_host(HOME, f"cat /var/lib/virtuoso-home/{NETWORK}.leases")
    assert {place for ((place, dummy),) in overlay.grid.domains().values()} == set(PROVIDERS)
    for name in names:
        assert overlay.addresses[name].startswith("198.18.77.") and f" {overlay.addresses[name]} {name} " in leases
        answer = on_host(HOME, f'python3 -c "{RESOLVE}" {name}.it.home.arpa 198.18.77.1').strip()
        assert answer == overlay.addresses[name]
        page = on_host(
            HOME,
            f'python3 -c "import urllib.request; '
            f"print(urllib.request.urlopen('http://{overlay.addresses[name]}/', timeout=10).read())\"",
        )
        assert f"<h1>{name}</h1>" in page
    for here, there in (names, names[::-1]):
        assert f"<h1>{there}</h1>" in overlay.inside(
            here, f"wget -q -O - http://{there}.it.home.arpa/ || wget -q -O - http://{overlay.addresses[there]}/"
        )
        assert overlay.ping(here, overlay.addresses[there])["received"] == 10
        assert overlay.ping(here, "198.18.77.1", 3)["received"] == 3


RESOLVE = (
    "import socket,sys,struct; q=struct.pack('!6H',7,256,1,0,0,0)+b''.join(bytes([len(p)])+p.encode() for p in "
    "sys.argv[1].split('.'))+b'\\0\\0\\1\\0\\1'; "
    "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.sendto(q,(sys.argv[2],53)); "
    "print('.'.join(map(str,s.recv(512)[-4:])))"
)


def test_the_inventory_leads_to_them_through_the_home(overlay, names):
    said = overlay.by_inventory("echo here is $(hostname)")
    assert all(f"here is {name}" in said for name in names), said
    (network,) = overlay.grid.rows("SELECT host.name FROM network JOIN host ON host.uuid = network.home")
    assert network["name"] == HOME


def test_overlay_info_says_which_transport_each_link_took_and_why(overlay, names, ansible):  # pylint: disable=unused-argument
    for host in HOSTS:
        told = ansible(host, "virtuoso.grid.overlay_info")
        assert told["links"], told
        for link in told["links"]:
            assert link["transport"] == "ssh" and link["state"] == "up" and "UDP" in link["reason"], link
    assert not on_host(HOME, "ps -ww -C ssh -o args= | grep -i 'PRIVATE' || true")


def _exactly_once(sender, found):
    for host, row in found.items():
        expected = 0 if host == sender else row["sent"]
        assert (row["once"], row["more"]) == (expected, 0), (sender, found)


def test_broadcast_reaches_each_site_exactly_once(overlay, names):  # pylint: disable=unused-argument
    for sender in (HOME, "provider2"):
        _exactly_once(sender, storm(sender, seconds=2))


def test_a_killed_tunnel_and_a_cut_way_come_back_by_themselves(overlay, names):
    ((place, dummy),) = overlay.grid.domains()[names[0]]
    until("the machine is there", lambda: overlay.reached(names[0]))
    on_host(HOME, "systemctl kill --signal=KILL 'virtuoso-overlay-ssh@*'")
    overlay.back(names[0], "the killed tunnel", time.monotonic())
    lab("wan", "cut", HOME, place, "--seconds", "8")
    # The kernel may still carry what was under way when it was cut.
    time.sleep(0.2)
    assert not overlay.reached(names[0])
    time.sleep(7.8)
    overlay.back(names[0], "the cut way", time.monotonic())


def test_a_removed_network_leaves_nothing(overlay, names):
    overlay.grid.play("retire", virtuoso_select=list(names)).succeeded()
    for host in HOSTS:
        on_host(
            host, f"ip link del vhit0 2>/dev/null; rm -f /root/it_frames.py; ip -br link show {LAN} 2>/dev/null; true"
        )
    foretold = overlay.make("--check", present=False)
    assert any(foretold.changed.values()) and leftovers(HOME)
    overlay.make(present=False)
    assert {host: leftovers(host) for host in HOSTS} == dict.fromkeys(HOSTS, "")
