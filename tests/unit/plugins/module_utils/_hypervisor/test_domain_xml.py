# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain XML: built, read, edited, never trusting a string."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, hardware, metadata

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"
HOSTILE = "a'\"<b>&amp;]]>--><!-- ../ ; \x00\x0b\ud800\ufffe"
USER = {
    "name": "alice",
    "shell": "/bin/bash",
    "sudo": True,
    "ssh_authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 " + HOSTILE],
}
SPEC = {
    "uuid": UUID,
    "name": "web1",
    "owner": "alice",
    "site": "site-a",
    "network": "virtuoso",
    "goal": "balance",
    "generation": 3,
    "image": {"name": "tiny@1", "digest": "sha256:" + "0" * 64},
    "tags": ["a", "b"],
    "packages": ["nginx"],
    "users": [USER],
    "user": None,
    "python": "/usr/bin/python3",
    "vcpus": 2,
    "memory": 512 * 2**20,
    "disk": None,
    "display": "vnc",
    "cpu_shares": None,
    "cpu_limit": None,
    "disk_io": None,
    "mac": "d2:ff:bf:00:00:01",
    "vcpus_max": 4,
    "memory_max": 2**30,
    "extra_networks": ["lan"],
    "cards": {"lan": hardware.Card("d2:11:bf:00:00:01", 1400)},
    "boot": ["disk"],
    "description": "my web",
}
MODEL = {
    **SPEC,
    "display_password": "secret",
    "virtualization": "qemu",
    "machine_type": "pc-q35-7.2",
    "disk_path": "/d/disk.qcow2",
    "seed_path": "/d/seed.iso",
    "layers": ["/d/layer.qcow2"],
}


def built(**changes):
    spec = {**SPEC, **changes}
    return domain_xml.parse(domain_xml.to_text(domain_xml.build({**MODEL, **changes}, metadata.of_spec(spec, False))))


def test_what_is_built_reads_the_same():
    read = domain_xml.read(built(cpu_shares=200))
    expected = {field: {**MODEL, "cpu_shares": 200}[field] for field in domain_xml.FIELDS}
    assert {field: read[field] for field in domain_xml.FIELDS} == expected
    assert (read["mac"], read["machine_type"], read["virtualization"]) == (SPEC["mac"], "pc-q35-7.2", "qemu")
    assert read["disk_path"] == "/d/disk.qcow2"


def test_a_limit_is_read_edited_and_lifted_again():
    limit = {"period": 50000, "quota": 10000}
    domain = built(cpu_limit=limit, cpu_shares=10000)
    assert domain_xml.read(domain)["cpu_limit"] == limit and domain_xml.read(domain)["cpu_shares"] == 10000
    domain_xml.edit(domain, {"cpu_limit": None})
    assert domain_xml.read(domain)["cpu_limit"] is None and domain.find("cputune/period") is None
    domain_xml.edit(domain, {"cpu_limit": limit})
    assert [domain.findtext(f"cputune/{tag}") for tag in ("shares", "period", "quota")] == ["10000", "50000", "10000"]


def test_a_disk_s_limits_are_read_edited_and_lifted_again():
    limits = {"read_bytes": 2**20, "write_iops": 50}
    domain = built(disk_io=limits)
    assert domain_xml.read(domain)["disk_io"] == limits
    ET.SubElement(domain.find("devices/disk/iotune"), "group_name").text = "others"
    domain_xml.edit(domain, {"disk_io": {"read_iops": 10}})
    assert domain_xml.read(domain)["disk_io"] == {"read_iops": 10}
    domain_xml.edit(domain, {"disk_io": None})
    assert domain_xml.read(domain)["disk_io"] is None and domain.findtext("devices/disk/iotune/group_name") == "others"
    assert all(int(each.text) for each in built(disk_io=limits).findall("devices/disk/iotune/*"))


def test_a_period_without_a_quota_limits_nothing():
    for tune in ("<period>50000</period>", "<period>50000</period><quota>-1</quota>", ""):
        assert domain_xml.read(domain_xml.parse(f"<domain><cputune>{tune}</cputune></domain>"))["cpu_limit"] is None


def test_a_card_on_another_network_has_what_that_carries():
    assert [
        (each.find("source").get("network"), each.find("mtu").get("size"))
        for each in built().findall("devices/interface")[1:]
    ] == [("lan", "1400")]


@pytest.mark.parametrize("started", [False, True])
def test_metadata_survives_both_ways_of_writing_it(started):
    values = {**metadata.of_spec(SPEC, started), "autostart": started}
    domain = built()
    metadata.put(domain, values)
    assert metadata.read(domain_xml.parse(domain_xml.to_text(domain))) == values
    # as libvirt stores what virDomainSetMetadata is given
    wrapped = f"<domain><metadata>{metadata.text(values)}</metadata></domain>"
    assert metadata.read(ET.fromstring(wrapped)) == values
    assert f"<{metadata.PREFIX}:" not in metadata.text(values) and f"xmlns:{metadata.PREFIX}" not in metadata.text(
        values
    )


def test_hostile_text_is_escaped_and_stays_text():
    values = metadata.of_spec({**SPEC, "owner": HOSTILE, "tags": [HOSTILE]}, False)
    text = domain_xml.to_text(domain_xml.build(MODEL, values))
    read = metadata.read(domain_xml.parse(text))
    assert read["owner"] == metadata.clean(HOSTILE) and read["tags"] == [metadata.clean(HOSTILE)]
    assert "\x00" not in text and "\ufffe" not in text


def test_a_domain_without_the_element_is_not_ours():
    assert metadata.read(ET.fromstring("<domain><metadata><machine/></metadata></domain>")) is None


def test_damaged_metadata_reads_as_empty_not_as_an_error():
    read = metadata.read(
        ET.fromstring(
            f"<domain><metadata><m:machine xmlns:m='{metadata.NAMESPACE}' generation='x'/></metadata></domain>"
        )
    )
    assert read["uuid"] is None and read["generation"] == 0 and read["image"] == {"name": "", "digest": ""}


def test_disks_name_their_formats_and_the_whole_chain():
    disk, seed = built().findall("devices/disk")
    assert disk.find("driver").get("type") == "qcow2" and seed.find("driver").get("type") == "raw"
    layer = disk.find("backingStore")
    assert layer.find("format").get("type") == "qcow2" and layer.find("source").get("file") == "/d/layer.qcow2"
    assert layer.find("source/seclabel").get("relabel") == "no"
    assert list(layer.find("backingStore")) == [] and seed.find("readonly") is not None


def test_display_listens_on_loopback_only():
    vnc = built().find("devices/graphics")
    assert vnc.get("listen") == vnc.find("listen").get("address") == "127.0.0.1"
    assert (
        built(display="none").find("devices/graphics") is None and built(display="none").find("devices/video") is None
    )


@pytest.mark.parametrize("kind, mode", [("kvm", "host-model"), ("qemu", "custom")])
def test_processor_follows_acceleration(kind, mode):
    domain = built(virtualization=kind)
    assert domain.get("type") == kind and domain.find("cpu").get("mode") == mode


CHANGES = [
    {"vcpus": 4},
    {"memory": 768 * 2**20},
    {"network": "lan"},
    {"vcpus_max": 8},
    {"memory_max": None},
    {"memory_max": 2**31},
    {"extra_networks": {"lan": hardware.Card("d2:11:bf:00:00:01"), "san": hardware.Card("d2:12:bf:00:00:01")}},
    {"extra_networks": {}},
    {"boot": ["network", "disk"]},
    {"description": None},
    {"description": "other"},
    {"display": "none"},
    {"display_password": "other"},
    {"cpu_shares": 300},
    {"cpu_limit": {"period": 100000, "quota": 20000}},
    {"disk_io": {"read_bytes": 2**20, "write_iops": 50}},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_an_edit_changes_its_field_and_nothing_else(change):
    domain = built()
    ET.SubElement(domain.find("devices"), "watchdog", model="i6300esb")
    before = domain_xml.read(domain)
    domain_xml.edit(domain, change)
    after = domain_xml.read(domain)
    expected = {**before, **change}
    if "extra_networks" in change:
        expected["extra_networks"] = sorted(change["extra_networks"])
    # What follows from the fields
    for field in ("memory_base", "memory_ceiling", "vcpus_removable"):
        expected[field] = after[field]
    if "display" in change:
        expected["display_password"] = None
    assert after == expected
    assert domain.find("devices/watchdog") is not None
    assert len(domain.findall("devices/disk")) == 2


def test_metadata_of_others_stays():
    domain = built()
    ET.SubElement(domain.find("metadata"), "{http://example.org/x}note").text = "keep"
    domain_xml.put_metadata(domain, metadata.of_spec({**SPEC, "owner": "bob"}, True))
    again = domain_xml.parse(domain_xml.to_text(domain))
    assert again.findtext("metadata/{http://example.org/x}note") == "keep"
    assert metadata.read(again)["owner"] == "bob" and again.findtext("title") == "web1 (bob)"


def test_display_comes_back_with_its_password():
    domain = built(display="none")
    domain_xml.edit(domain, {"display_password": "new", "display": "vnc"})
    assert domain_xml.read(domain)["display_password"] == "new"


@pytest.mark.parametrize("port, told", [("-1", None), ("5901", 5901)])
def test_display_of(port, told):
    domain = built()
    domain.find("devices/graphics").set("port", port)
    assert domain_xml.display_of(domain) == {"type": "vnc", "host": "127.0.0.1", "port": told}
    assert domain_xml.display_of(built(display="none")) == {"type": "none", "host": None, "port": None}


def test_agent_connected():
    domain = built()
    assert not domain_xml.agent_connected(domain)
    domain.find("devices/channel/target").set("state", "connected")
    assert domain_xml.agent_connected(domain)
