# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each step of a deployment needs of those before it."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._play import deployment
from ansible_collections.virtuoso.grid.plugins.module_utils._play.deployment import (
    UNKNOWN_DIGEST,
    placement_entries,
    wanted_images,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._play.paging import paging_plan


def provider_share(orders, placed, images, provider, transferred=(), **more):
    plan = {"orders": orders, "placed": placed, "images": images}
    return deployment.provider_share(plan, provider, transferred=transferred, **more)


DIGEST = "sha256:" + "a" * 64
CATALOGUE = {
    "tiny": {"source": {"type": "packages"}, "user": "root"},
    "pinned": {"version": "2", "source": {"type": "blank"}},
}


def order(name, image="tiny", made_from=None):
    spec = {
        "name": name,
        "image": image,
        "vcpus": 1,
        "memory": 2,
        "disk": None,
        "network": "virtuoso",
        "goal": "balance",
    }
    return {"name": name, "uuid": "u-" + name, "spec": spec, "image": made_from}


def placed(*names, provider="provider1", **more):
    return [
        {"name": name, "uuid": "u-" + name, "generation": 1, "site": "site-a", "provider": provider, **more}
        for name in names
    ]


def built(name="tiny", version="1", **more):
    return {
        "name": name,
        "version": version,
        "reference": f"{name}@{version}",
        "digest": DIGEST,
        "size": 5,
        "user": "root",
        "python": None,
        **more,
    }


def test_each_image_is_wanted_once_and_only_the_catalogues_version_has_a_source():
    wanted = wanted_images(
        [order("a"), order("b"), order("c", "tiny@old"), order("d", "pinned@2"), order("e", DIGEST)],
        CATALOGUE,
    )
    assert wanted == [
        {"name": "tiny", "source": {"type": "packages"}, "user": "root"},
        {"name": "tiny", "version": "old", "user": "root"},
        {"name": "pinned", "version": "2", "source": {"type": "blank"}},
        {"name": DIGEST, "digest": DIGEST},
    ]


def test_a_machine_that_exists_keeps_its_image():
    exists = order("a", made_from={"name": "tiny@old", "digest": DIGEST})
    assert wanted_images([exists], CATALOGUE) == []
    entries = placement_entries([exists], [])
    assert entries["machines"][0]["image"]["name"] == "tiny@old" and entries["failed"] == []
    share = provider_share([exists], placed("a"), [], "provider1")
    assert share["machines"][0]["image"] == {"name": "tiny@old", "digest": DIGEST}


def test_machines_are_placed_with_their_image_or_not_at_all():
    broken = {"name": "other", "failed": True, "msg": "wrong checksum", "failure": {"code": "checksum_mismatch"}}
    entries = placement_entries([order("a"), order("b", "other"), order("c", "lost")], [built(virtual_size=9), broken])
    assert entries["machines"] == [
        {
            "name": "a",
            "uuid": "u-a",
            "vcpus": 1,
            "memory": 2,
            "disk": None,
            "network": "virtuoso",
            "goal": "balance",
            "image": {"name": "tiny@1", "digest": DIGEST, "size": 5, "virtual_size": 9},
        }
    ]
    failures = [(row["name"], row["msg"], row["failure"]["code"]) for row in entries["failed"]]
    assert failures[0] == ("b", "machine b: wrong checksum", "checksum_mismatch")
    assert failures[1][0] == "c" and failures[1][2] == "image_missing" and entries["failed"][1]["failure"]["remedy"]


def test_two_wishes_for_images_of_one_name_are_told_apart():
    broken = {"name": "tiny", "failed": True, "msg": "not there", "failure": {"code": "image_unknown"}}
    orders = [order("a"), order("b", "tiny@lost"), order("c", "tiny@1"), order("d")]
    images = [built(version="2"), broken, built(version="1")]
    entries = placement_entries(orders, images)
    assert [(entry["name"], entry["image"]["name"]) for entry in entries["machines"]] == [
        ("a", "tiny@2"),
        ("c", "tiny@1"),
        ("d", "tiny@2"),
    ]
    assert [row["name"] for row in entries["failed"]] == ["b"]
    share = provider_share(orders, placed("a", "c", "d"), images, "provider1")
    assert [machine["image"]["name"] for machine in share["machines"]] == ["tiny@2", "tiny@1", "tiny@2"]


def test_a_provider_gets_its_own_machines_and_each_image_once():
    share = provider_share(
        [order("a"), order("b"), order("c")],
        placed("a", "b") + placed("c", provider="provider2"),
        [built()],
        "provider1",
    )
    assert [machine["name"] for machine in share["machines"]] == ["a", "b"]
    assert share["images"] == [{"name": "tiny@1", "digest": DIGEST, "size": 5}]
    assert share["machines"][0]["image"] == {"name": "tiny@1", "digest": DIGEST}
    assert share["machines"][0]["user"] == "root" and share["machines"][0]["uuid"] == "u-a"
    assert share["failed"] == []


def test_a_provider_is_told_which_of_its_machines_exist_already():
    orders = [
        {**order(name), "state": state}
        for name, state in (("a", "future"), ("b", "placed"), ("c", "stopped"), ("d", "absent"))
    ]
    share = provider_share([*orders, order("e")], placed("a", "b", "c", "d", "e"), [built()], "provider1")
    assert [machine["exists"] for machine in share["machines"]] == [False, False, True, True, False]


def test_a_machine_without_a_place_is_nobodys():
    share = provider_share([order("a")], placed("a", failed=True), [built()], "provider1")
    assert share == {"images": [], "paged": [], "to_page": [], "machines": [], "failed": []}


def test_an_image_that_did_not_arrive_fails_its_machines():
    lost = {"name": "tiny@1", "failed": True, "msg": "disk full", "failure": {"code": "disk_full"}}
    share = provider_share([order("a")], placed("a"), [built()], "provider1", [lost])
    assert share["machines"] == [] and share["failed"][0]["failure"]["code"] == "disk_full"


def test_in_check_mode_what_does_not_exist_yet_has_stand_ins():
    share = provider_share([order("a")], [{"name": "a", "uuid": None, "provider": "p"}], [built(digest=None)], "p")
    machine = share["machines"][0]
    assert machine["image"]["digest"] == UNKNOWN_DIGEST and len(machine["uuid"]) == 36


PAGED = "sha256:" + "d" * 64


def _paged_orders():
    spec = {"image": "tiny", "start": "on_demand"}
    orders = [
        {"name": name, "uuid": uuid, "spec": spec, "state": "placed"} for name, uuid in (("a", "u1"), ("b", "u2"))
    ]
    orders.append({"name": "c", "uuid": "u3", "spec": {"image": "tiny"}, "state": "placed"})
    placed = [
        {"name": order["name"], "uuid": order["uuid"], "provider": "p2" if order["name"] == "c" else "p1"}
        for order in orders
    ]
    return orders, placed, [{"reference": "tiny@1", "digest": PAGED, "size": 5}]


def test_machines_on_demand_page_where_their_image_is_not():
    orders, placed, images = _paged_orders()
    assert provider_share(orders, placed, images, "p1", here=[])["to_page"] == [{"digest": PAGED}]
    assert provider_share(orders, placed, images, "p1", here=[{"digest": PAGED}])["to_page"] == []
    assert provider_share(orders, placed, images, "p2", here=[])["to_page"] == []
    pager = {"digest": PAGED, "host": "h", "port": 1, "virtual_size": 512}
    share = provider_share(orders, placed, images, "p1", pagers=[pager])
    assert share["images"] == [] and [image["digest"] for image in share["paged"]] == [PAGED]
    assert [machine["paging"] for machine in share["machines"]] == [{"host": "h", "port": 1, "virtual_size": 512}] * 2
    without = provider_share(orders, placed, images, "p1", pagers=[{"digest": PAGED, "failed": True}])
    assert (
        without["paged"] == []
        and len(without["images"]) == 1
        and not any("paging" in machine for machine in without["machines"])
    )


def test_another_holder_exports_what_the_image_server_cannot():
    wanted, providers = {"p1": [{"digest": PAGED}]}, [{"name": "p1"}, {"name": "p2", "images": [{"digest": PAGED}]}]
    served = [{"digest": PAGED, "host": "h", "port": 1, "virtual_size": 512, "source": "home1"}]
    assert paging_plan(wanted, "p2", served, providers)["exports"] == []
    assert paging_plan(wanted, "p2", [{"digest": PAGED, "failed": True}], providers)["exports"] == wanted["p1"]
    assert paging_plan(wanted, "p1", [], providers)["exports"] == []
    found = [{**served[0], "source": "p2"}]
    (pager,) = paging_plan(wanted, "p1", found, endpoints={"p2": {"port": 2222}})["pagers"]
    assert pager["upstream"] == {"host": "h", "port": 1, "virtual_size": 512} and pager["ahead"] == {
        "name": "p2",
        "host": "h",
        "port": 2222,
    }
    assert paging_plan(wanted, "p1", found)["pagers"][0]["ahead"]["port"] == 22
    assert paging_plan(wanted, "p1", [])["pagers"] == [] == paging_plan(wanted, "p2", found)["pagers"]


def test_cards_get_the_mtu_of_networks_of_the_overlay():
    (entry,) = provider_share([order("a")], placed("a"), [built()], "provider1")["machines"]
    networks = [{"name": "virtuoso", "mtu": 1380}]
    (carries,) = provider_share([order("a")], placed("a"), [built()], "provider1", networks=networks)["machines"]
    assert "mtu" not in entry and carries == {**entry, "mtu": 1380}
    entry, networks = {"uuid": "u", "network": "lan"}, [{"name": "lan", "mtu": 1450}]
    assert deployment.with_mtu([entry, {**entry, "network": "virtuoso"}], networks) == [
        {**entry, "mtu": 1450},
        {**entry, "network": "virtuoso"},
    ]
    both = {**entry, "network": "virtuoso", "extra_networks": ["other", entry["network"]]}
    (carries,) = deployment.with_mtu([both], networks)
    assert carries["mtus"] == {entry["network"]: 1450} and "mtu" not in carries


def test_orders_need_images_first_and_then_a_place():
    needs = deployment.order_needs([order("a")], CATALOGUE)
    assert [image["name"] for image in needs["images"]] == ["tiny"]
    needs = deployment.order_needs([order("a")], CATALOGUE, [built()])
    assert [machine["name"] for machine in needs["machines"]] == ["a"] and needs["failed"] == []


def test_where_the_image_server_is_away_a_providers_image_serves():
    lost = {"name": "x", "failed": True, "msg": "not here", "failure": {"code": "image_unknown"}}
    looks = {
        "p1": {"images": [lost, lost, lost]},
        "p2": {"images": [built(), built(changed=True), lost]},
        "p3": {"unreachable": True},
        "p4": {},
    }
    asked = {"unreachable": True, "msg": "Connection refused\nby home1"}
    tiny, *others = deployment.images_found(looks, asked, "home1")
    assert tiny["digest"] == DIGEST
    for image in others:
        assert image["failure"]["code"] == "image_server_unreachable" and "home1" in image["failure"]["remedy"]
        assert image["msg"].endswith("the image server home1 can't be asked: Connection refused")
    placeable = deployment.placement_entries([order("a"), order("b", "pinned"), order("c", DIGEST)], [tiny, *others])
    assert [row["name"] for row in placeable["failed"]] == ["b", "c"]


def test_machines_settle_when_their_image_has_come():
    machines = [
        {"name": "a", "uuid": "u1", "image": {"name": "tiny@1"}, "paging": {}},
        {"name": "b", "uuid": "u2", "image": {"name": "big@1"}, "paging": {"host": "h"}},
        {"name": "c", "uuid": "u3", "image": {"name": "tiny@1"}},
    ]
    machines[0]["paging"] = {"host": "h"}
    transfers = [
        {
            "images": [
                {"name": "tiny@1"},
                {"name": "big@1", "failed": True, "msg": "cut off", "failure": {"code": "source_unreachable"}},
            ]
        }
    ]
    after = deployment.settling(machines, transfers, False)
    assert [machine["name"] for machine in after["machines"]] == ["a", "b"] and not any(
        "paging" in machine for machine in after["machines"]
    )
    assert [row["failure"]["code"] for row in after["rows"]] == ["source_unreachable"]
    foretold = deployment.settling(machines[:1], transfers, True)
    assert foretold["machines"] == [] and foretold["rows"][0]["actions"] == ["settle"]
