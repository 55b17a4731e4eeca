# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and links of the overlay in the store: written once, changed where they differ, gone when they are gone."""

from __future__ import annotations

import sqlalchemy as sa
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.changes import Registration
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import listing, query, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.networks import Overlay

LAN = {"name": "lan", "home": "home1", "vni": 7, "mtu": 1450, "sites": ["north", "south"]}
LINK = {
    **{
        "network": "lan",
        "between": ["home1", "provider1"],
        "sites": ["north", "south"],
        "kind": "tree",
        "transport": "vxlan",
    },
    **{"reason": "UDP passes both ways", "vni": 9, "mtu": 1450},
}


def see(grid, networks, links, check=False):
    """(name, action) of all that changed."""
    with grid.store.reading(empty_if_missing=True) if check else grid.store.writing() as connection:
        overlay = Overlay(connection)
        results = overlay.see_networks(networks) + overlay.see_links(links)
        if not check:
            overlay.write()
    return [(result["name"], *result["actions"]) for result in results if result["changed"]]


def rows(grid):
    with grid.store.reading() as connection:
        links = connection.execute(sa.select(schema.LINK)).all()
        networks = connection.execute(sa.select(schema.NETWORK).where(schema.NETWORK.c.vni.is_not(None))).all()
        joined = connection.execute(sa.select(schema.LINK_NETWORK)).all()
        return networks, links, joined, query.sites(connection)


def test_they_are_written_once_and_again_where_they_differ(grid):
    grid.register([{"name": "home1", "kind": "home", "site": "north", "address": "198.18.0.11"}])
    both = [("lan", "register"), ("lan home1 - provider1", "register")]
    assert see(grid, [LAN], [LINK], check=True) == both
    assert see(grid, [LAN], [LINK]) == both and see(grid, [LAN], [LINK]) == []
    (network,), (link,), (joined,), sites = rows(grid)
    assert (network.vni, network.mtu, link.transport, link.site_a) == (7, 1450, "vxlan", sites["north"])
    assert network.home and joined.network == network.uuid and link.details["reason"] == "UDP passes both ways"
    assert see(grid, [LAN], [{**LINK, "transport": "ssh", "reason": "no UDP"}]) == [
        ("lan home1 - provider1", "register")
    ]
    assert rows(grid)[1][0].uuid == link.uuid and rows(grid)[1][0].transport == "ssh"


def test_a_home_that_is_registered_later_or_at_once_becomes_the_networks_home(grid):
    see(grid, [LAN], [])
    assert rows(grid)[0][0].home is None and see(grid, [LAN], []) == []
    home = {"name": "home1", "kind": "home", "site": "north", "address": "198.18.0.11"}
    with grid.store.writing() as connection:
        registration = Registration(connection)
        registration.see_hosts([home])
        overlay = Overlay(connection, ["home1"])
        # What isn't said, here its VNI, stays.
        assert [row["changed"] for row in overlay.see_networks([{"name": "lan", "home": "home1"}])] == [True]
        registration.write()
        overlay.write()
    (network,) = rows(grid)[0]
    assert network.home and (network.vni, network.mtu) == (7, 1450) and see(grid, [LAN], []) == []


def test_a_machine_on_a_homes_network_knows_its_home(grid, tmp_path):
    grid.register([{"name": "home1", "kind": "home", "site": "north", "address": "198.18.0.11"}])
    see(grid, [LAN], [])
    grid.order({"name": "web1", "image": "tiny", "network": "lan"}, {"name": "web2", "image": "tiny"})
    with grid.store.reading() as connection:
        slow = query.machines(connection)
    assert {row["name"]: row["network_home"] for row in slow} == {"web1": "home1", "web2": None}
    assert listing.read(str(tmp_path / "grid.db"))[0] == slow


def test_what_is_gone_goes_and_its_vni_is_free(grid):
    see(grid, [LAN], [LINK])
    other = {**LAN, "name": "other"}
    changed = see(grid, [other], [{**LINK, "network": "other"}])
    assert ("lan", "forget") in changed and ("other", "register") in changed
    assert [row.name for row in rows(grid)[0]] == ["other"] and len(rows(grid)[1]) == 1
    see(grid, [], [])
    assert rows(grid)[:3] == ([], [], [])
