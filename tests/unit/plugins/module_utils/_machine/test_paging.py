# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with the disk of a machine that pages, and how its domain names the export."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import disk_base
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import parse_entry

DIGEST = "sha256:" + "a" * 64
HERE = {"host": "198.18.0.21", "port": 10811, "export": DIGEST}
THERE = {**HERE, "port": 10812}
WANTED = {**THERE, "virtual_size": 2**20}


@pytest.mark.parametrize(
    "config, live, leftover, wanted, whole, kinds",
    [
        (None, None, False, None, True, []),
        (None, None, False, WANTED, False, []),
        (HERE, None, False, None, True, ["settle"]),
        (HERE, HERE, False, WANTED, True, ["settle"]),
        (HERE, HERE, False, None, False, []),
        (THERE, THERE, False, WANTED, False, []),
        (HERE, HERE, False, WANTED, False, ["repoint"]),
        (HERE, None, False, WANTED, False, ["repoint"]),
        # killed between the change-over and the definition, and before the removal
        (HERE, THERE, False, WANTED, False, ["repoint"]),
        (None, HERE, False, None, True, ["settle"]),
        (None, None, True, None, True, ["settle"]),
        (None, None, True, None, False, []),
    ],
)
def test_what_is_done_with_the_disk(config, live, leftover, wanted, whole, kinds):
    assert [move.kind for move in disk_base.decide(config, live, leftover, wanted, whole)] == kinds


def test_a_disk_tells_which_layer_it_pages_from():
    uri = disk_base.export_uri(HERE)
    assert uri == f"nbd://198.18.0.21:10811/{DIGEST}" and disk_base.paged_layer(uri) == DIGEST
    assert disk_base.export_uri({**HERE, "host": "fd00::1"}) == f"nbd://[fd00::1]:10811/{DIGEST}"
    assert disk_base.paged_layer("sha256-a.qcow2") is None and disk_base.paged_layer(None) is None
    assert "-u" in disk_base.backing_words(uri) and "-u" not in disk_base.backing_words("/layer.qcow2")


def test_only_an_error_of_its_export_is_a_lost_source():
    assert disk_base.lost(HERE, "io_error")
    assert (
        not disk_base.lost(HERE, "no_space") and not disk_base.lost(None, "io_error") and not disk_base.lost(HERE, None)
    )


def _domain():
    return ET.fromstring(
        "<domain><devices><disk type='file'><source file='/m/disk.paging.qcow2'/><backingStore/>"
        "<target dev='vda'/></disk></devices></domain>"
    )


def test_the_domain_names_the_export_and_later_the_layers():
    tree = _domain()
    domain_xml.set_disk(tree, "/m/disk.paging.qcow2", [], HERE)
    assert domain_xml.read(tree)["pages"] == HERE
    assert tree.find("devices/disk/backingStore/source").get("tls") == "yes"
    domain_xml.set_disk(tree, "/m/disk.qcow2", ["/l/b.qcow2", "/l/a.qcow2"], None)
    assert domain_xml.read(tree)["pages"] is None and domain_xml.read(tree)["disk_path"] == "/m/disk.qcow2"
    assert [each.get("file") for each in tree.iterfind(".//backingStore/source")] == ["/l/b.qcow2", "/l/a.qcow2"]


def test_whether_a_copy_of_the_disk_has_caught_up():
    tree = _domain()
    assert domain_xml.mirror(tree) is None
    mirror = ET.SubElement(tree.find("devices/disk"), "mirror")
    assert domain_xml.mirror(tree) is False
    mirror.set("ready", "yes")
    assert domain_xml.mirror(tree) is True


ENTRY = {
    "uuid": "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11",
    "name": "web1",
    "owner": "alice",
    "image": {"name": "tiny@1", "digest": DIGEST},
}


def test_an_entry_may_name_an_export():
    spec = parse_entry(
        {**ENTRY, "paging": {"host": "198.18.0.21", "port": "10812", "virtual_size": 2**20, "kind": "pager"}}
    )[2]
    assert spec["pages"] == {**WANTED, "host": "198.18.0.21"}
    assert parse_entry(ENTRY)[2]["pages"] is None


@pytest.mark.parametrize(
    "change", [{"host": "a b"}, {"host": None}, {"port": 0}, {"port": 2**16}, {"virtual_size": "x"}]
)
def test_an_entry_that_names_no_export(change):
    with pytest.raises(GridError) as caught:
        parse_entry({**ENTRY, "paging": {"host": "h", "port": 1, "virtual_size": 512, **change}})
    assert caught.value.code == "invalid_paging"
