# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors, memory, cards and boot order in a domain's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, hardware, metadata

MIB = 2**20
SPEC = {
    "uuid": "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11",
    "name": "web1",
    "owner": "alice",
    "site": "a",
    "network": "virtuoso",
    "goal": "balance",
    "generation": 1,
    "image": {"name": "tiny@1", "digest": "sha256:" + "0" * 64},
    "vcpus": 1,
    "memory": 512 * MIB,
    "display": "none",
    "mac": "d2:ff:bf:00:00:01",
    "virtualization": "qemu",
    "machine_type": "q35",
    "disk_path": "/d/disk.qcow2",
    "seed_path": "/d/seed.iso",
    "layers": [],
}


def built(**changes):
    return domain_xml.build({**SPEC, **changes}, metadata.of_spec(SPEC, False))


def read(domain):
    return hardware.read(domain, domain.find("devices/disk"))


def live(domain, **changes):
    """The same as libvirt shows it while it runs."""
    domain.set("id", "1")
    for path, text in changes.items():
        domain.find(path.replace("__", "/")).text = str(text)
    return domain


@pytest.mark.parametrize("vcpus, most", [(1, 2), (4, 8), (127, 254), (128, 128), (1024, 1024)])
def test_room_for_processors(vcpus, most):
    assert hardware.default_vcpus_max(vcpus) == most
    facts = read(built(vcpus=vcpus))
    assert (facts["vcpus"], facts["vcpus_max"], facts["vcpus_removable"]) == (vcpus, most, vcpus - 1)


def test_more_processors_than_there_is_room_for_make_room():
    domain = built()
    hardware.set_vcpus(domain, 2)
    assert (read(domain)["vcpus"], read(domain)["vcpus_max"]) == (2, 2)
    hardware.set_vcpus(domain, 3)
    assert (read(domain)["vcpus"], read(domain)["vcpus_max"]) == (3, 6)
    hardware.set_vcpus(domain, 1, 1)
    assert (read(domain)["vcpus"], read(domain)["vcpus_max"], domain.find("vcpus")) == (1, 1, None)
    assert domain.find("vcpu").get("current") is None


def test_memory_without_a_bound_is_plain():
    domain = built()
    facts = read(domain)
    assert (facts["memory"], facts["memory_max"], facts["memory_ceiling"]) == (512 * MIB, None, 512 * MIB)
    assert (
        domain.find("maxMemory") is None and domain.find("cpu/numa") is None and domain.find("devices/memory") is None
    )


@pytest.mark.parametrize(
    "first, then",
    [
        ((512, None), (256, None)),
        ((512, None), (512, 1024)),
        ((512, 1024), (1024, None)),
        ((512, 1024), (256, 512)),
        ((512, 1024), (2048, 4096)),
        ((512, 1024), (1024, 1024)),
    ],
)
def test_memory_and_its_bound_change_in_any_way(first, then):
    size, most = (None if each is None else each * MIB for each in first)
    domain = built(memory=size, memory_max=most)
    size, most = (None if each is None else each * MIB for each in then)
    domain_xml.edit(domain, {"memory": size, "memory_max": most})
    facts = read(domain)
    more = most is not None and most > size
    assert (facts["memory"], facts["memory_max"], facts["memory_base"]) == (size, most if more else None, size)
    assert (
        len(domain.findall("devices/memory"))
        == len(domain.findall("cpu/numa"))
        == len(domain.findall("maxMemory"))
        == more
    )
    assert int(domain.findtext("memory")) * 1024 == (most if more else size)


def test_the_cell_of_memory_has_all_processors():
    domain = built(vcpus=2, memory_max=1024 * MIB)
    assert domain.find("cpu/numa/cell").get("cpus") == "0-3"
    domain_xml.edit(domain, {"vcpus": 5})
    assert domain.find("cpu/numa/cell").get("cpus") == "0-9"


def test_how_a_running_machine_comes_to_memory():
    domain = live(built(memory_max=1024 * MIB), currentMemory=256 * 1024)
    facts = read(domain)
    assert (facts["memory"], facts["memory_base"], facts["memory_ceiling"]) == (256 * MIB, 512 * MIB, 1024 * MIB)
    assert hardware.memory_split(facts, 256 * MIB) == (256 * MIB, 0)
    assert hardware.memory_split(facts, 512 * MIB) == (512 * MIB, 0)
    assert hardware.memory_split(facts, 640 * MIB) == (512 * MIB, 128 * MIB)
    assert hardware.memory_device(domain, 0) is None
    asked = ET.fromstring(hardware.memory_device(domain, 128 * MIB))
    assert asked.findtext("target/requested") == str(128 * 1024) and asked.findtext("target/size") == str(512 * 1024)
    assert hardware.memory_device(built(), 128 * MIB) is None


def test_cards_are_told_from_those_of_others():
    domain = built(cards={"lan": hardware.Card("d2:11:00:00:00:01")})
    other = ET.SubElement(domain.find("devices"), "interface", type="network")
    ET.SubElement(other, "source", network="theirs")
    assert read(domain)["extra_networks"] == ["lan"]
    domain_xml.edit(
        domain,
        {"extra_networks": {"lan": hardware.Card("d2:11:00:00:00:99"), "san": hardware.Card("d2:12:00:00:00:01")}},
    )
    macs = [each.get("address") for each in domain.findall("devices/interface/mac")]
    assert macs == [SPEC["mac"], "d2:11:00:00:00:01", "d2:12:00:00:00:01"], "a card that is there keeps its address"
    domain_xml.edit(domain, {"extra_networks": {}})
    assert read(domain)["extra_networks"] == [] and len(domain.findall("devices/interface")) == 2
    assert hardware.card_text(domain, "lan") is None


def test_a_card_that_is_plugged_in_finds_a_slot_of_its_own():
    domain = built(cards={"lan": hardware.Card("d2:11:00:00:00:01")})
    ET.SubElement(domain.findall("devices/interface")[1], "address", type="pci", bus="0x09")
    assert "address type" in hardware.card_text(domain, "lan") and "address type" not in hardware.card_text(
        domain, "lan", new=True
    )


def test_slots():
    text = "<domain><devices>{}<interface><address type='pci' bus='0x01'/></interface></devices></domain>"
    ports = "".join(f"<controller type='pci' index='{index}' model='pcie-root-port'/>" for index in (1, 2, 3))
    root = "<controller type='pci' index='0' model='pcie-root'/>"
    assert hardware.free_ports(ET.fromstring(text.format(root + ports))) == 2
    assert hardware.free_ports(ET.fromstring(text.format(root))) == 0
    assert hardware.free_ports(ET.fromstring(text.format("<controller type='pci' index='0' model='pci-root'/>"))) == 27


def test_boot_order():
    domain = built()
    assert read(domain)["boot"] == ["disk"] and domain.find("devices/interface/rom").get("enabled") == "no"
    domain_xml.edit(domain, {"boot": ["network", "disk"]})
    assert read(domain)["boot"] == ["network", "disk"] and domain.find("devices/interface/rom") is None
    domain_xml.edit(domain, {"boot": ["disk"]})
    assert read(domain)["boot"] == ["disk"] and domain.find("devices/interface/boot") is None
