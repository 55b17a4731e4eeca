# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hosts reach each other, and what the store has of them."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._play.hosts import endpoints, store_hosts

BARE = {"inventory_hostname": "p1"}
FULL = {
    "inventory_hostname": "home1",
    "virtuoso_address": "home.example",
    "virtuoso_site": "site-home",
    "virtuoso_depot": "/srv/depot",
    "ansible_host": "198.18.0.11",
    "ansible_port": "2222",
    "ansible_user": "root",
    "ansible_ssh_common_args": "-J gate",
}


def test_a_host_that_says_nothing_is_reached_by_its_name():
    assert endpoints([BARE]) == {
        "p1": {"name": "p1", "address": "p1", "port": 22, "site": "p1", "depot": "/var/lib/virtuoso"}
    }


def test_what_a_host_says_counts_and_only_what_is_wanted_is_returned():
    assert endpoints([FULL]) == {
        "home1": {
            "name": "home1",
            "address": "home.example",
            "port": 2222,
            "site": "site-home",
            "depot": "/srv/depot",
        }
    }
    assert endpoints([{**FULL, "virtuoso_address": None}], ["address"]) == {"home1": {"address": "198.18.0.11"}}


def test_the_store_knows_how_ansible_reaches_a_host():
    (home,) = store_hosts([FULL], "home")
    assert home == {
        "name": "home1",
        "kind": "home",
        "site": "site-home",
        "address": "198.18.0.11",
        "port": 2222,
        "user": "root",
        "identity_file": "",
        "ssh_args": "-J gate",
        "facts": {"connection": "ssh"},
    }
    (provider,) = store_hosts([BARE], "provider")
    assert (provider["address"], provider["port"], provider["site"]) == ("p1", 22, "p1") and "facts" not in provider
