# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seed as Debian 12's cloud-init itself reads it: by all its renderers of networks, and by its schema."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import parse_entry
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import seed

TREE = Path(__file__).resolve().parents[5] / "build" / "cloud-init"
PYTHON = TREE / "usr" / "lib" / "python3" / "dist-packages"
STATIC = {
    "method": "static",
    "ip": "192.0.2.7/24",
    "gateway": "192.0.2.1",
    "nameservers": ["192.0.2.2", "192.0.2.3"],
    "search": ["example.org", "lab.example.org"],
}
DISTRIBUTIONS = {
    "netplan": "ubuntu",
    "networkd": "debian",
    "eni": "debian",
    "sysconfig": "rhel",
    "network-manager": "fedora",
}


def wanted(**changes):
    return parse_entry(
        {
            "uuid": "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11",
            "name": "web1",
            "owner": "alice",
            "image": {"name": "debian-12@1", "digest": "sha256:" + "a" * 64},
            "extra_networks": ["lan"],
            **changes,
        }
    ).wanted


def cloud_init(*arguments):
    """What cloud-init's program says."""
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "cloudinit.cmd.main", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PYTHON)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(directory, renderer, address):
    """The files that a renderer makes of the seed, by path, and the MAC addresses of both cards."""
    spec = wanted(address=address)
    source, target = directory / "network-config", directory / renderer
    source.write_text(seed.files(spec)["network-config"])
    arguments = ("-p", source, "-k", "yaml", "-d", target, "-D", DISTRIBUTIONS[renderer], "-O", renderer)
    cloud_init("devel", "net-convert", *arguments)
    files = {str(file.relative_to(target)): file.read_text() for file in target.rglob("*") if file.is_file()}
    return files, [spec["mac"], spec["cards"]["lan"].mac]


def ini(text):
    """Sections of a file of networkd or NetworkManager; one that comes twice is merged."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def shell(text):
    """Assignments of a file of sysconfig."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value.strip('"') for name, dummy, value in lines}


def stanzas(text):
    """The lines of each interface in a file of ifupdown, as words."""
    found = {}
    for words in (line.split() for line in text.splitlines() if line and not line.startswith("#")):
        if words[0] == "iface":
            found[words[1]] = [words[2:]]
            lines = found[words[1]]
        elif words[0] != "auto":
            lines.append(words)
    return found


def test_netplan(tmp_path):
    files, macs = rendered(tmp_path, "netplan", STATIC)
    first, second = yaml.safe_load(files["etc/netplan/50-cloud-init.yaml"])["network"]["ethernets"].values()
    assert [card["match"] for card in (first, second)] == [{"macaddress": mac} for mac in macs]
    assert first["addresses"] == ["192.0.2.7/24"] and first["gateway4"] == "192.0.2.1" and not first.get("dhcp4")
    assert first["nameservers"] == {"addresses": STATIC["nameservers"], "search": STATIC["search"]}
    assert second["dhcp4"] is True and "addresses" not in second


def test_networkd(tmp_path):
    files, macs = rendered(tmp_path, "networkd", STATIC)
    first, second = (ini(files[f"etc/systemd/network/10-cloud-init-eth{number}.network"]) for number in (0, 1))
    assert [card["Match"] for card in (first, second)] == [
        {"MACAddress": mac, "Name": f"eth{number}"} for number, mac in enumerate(macs)
    ]
    assert first["Address"] == {"Address": "192.0.2.7/24"}
    # Without a destination it is the default route
    assert first["Route"] == {"Gateway": "192.0.2.1"}
    assert first["Network"] == {"DHCP": "no", "DNS": "192.0.2.2 192.0.2.3", "Domains": "example.org lab.example.org"}
    assert second["Network"] == {"DHCP": "ipv4"} and "Address" not in second


def test_eni(tmp_path):
    files, macs = rendered(tmp_path, "eni", STATIC)
    found = stanzas(files["etc/network/interfaces.d/50-cloud-init"])
    assert found["eth0"] == [
        ["inet", "static"],
        ["address", "192.0.2.7/24"],
        ["dns-nameservers", *STATIC["nameservers"]],
        ["dns-search", *STATIC["search"]],
        # ifupdown's own, by ip(8): no command of route(8), which may not be there
        ["gateway", "192.0.2.1"],
    ]
    assert found["eth1"] == [["inet", "dhcp"]]
    rules = files["etc/udev/rules.d/70-persistent-net.rules"].splitlines()
    for number, mac in enumerate(macs):
        assert any(f'"{mac}"' in rule and f'NAME="eth{number}"' in rule for rule in rules)


def test_sysconfig(tmp_path):
    files, macs = rendered(tmp_path, "sysconfig", STATIC)
    first, second = (shell(files[f"etc/sysconfig/network-scripts/ifcfg-eth{number}"]) for number in (0, 1))
    assert [card["HWADDR"] for card in (first, second)] == macs
    assert (first["BOOTPROTO"], first["IPADDR"], first["NETMASK"]) == ("none", "192.0.2.7", "255.255.255.0")
    assert (first["DEFROUTE"], first["GATEWAY"]) == ("yes", "192.0.2.1")
    assert [first["DNS1"], first["DNS2"]] == STATIC["nameservers"] and first["DOMAIN"].split() == STATIC["search"]
    assert second["BOOTPROTO"] == "dhcp" and "IPADDR" not in second


def test_network_manager(tmp_path):
    files, macs = rendered(tmp_path, "network-manager", STATIC)
    place = "etc/NetworkManager/system-connections/cloud-init-eth{}.nmconnection"
    first, second = (ini(files[place.format(number)]) for number in (0, 1))
    assert [card["ethernet"]["mac-address"].lower() for card in (first, second)] == macs
    ipv4 = first["ipv4"]
    assert (ipv4["method"], ipv4["address1"], ipv4["gateway"]) == ("manual", "192.0.2.7/24", "192.0.2.1")
    assert ipv4["dns"].strip(";").split(";") == STATIC["nameservers"]
    assert ipv4["dns-search"].strip(";").split(";") == STATIC["search"]
    assert second["ipv4"]["method"] == "auto"


@pytest.mark.parametrize(
    ("renderer", "dhcp"),
    [
        ("netplan", "dhcp4: true"),
        ("networkd", "DHCP=ipv4"),
        ("eni", "iface eth0 inet dhcp"),
        ("sysconfig", "BOOTPROTO=dhcp"),
        ("network-manager", "method=auto"),
    ],
)
def test_dhcp_on_each_card_under_each_renderer(tmp_path, renderer, dhcp):
    files, macs = rendered(tmp_path, renderer, None)
    text = "\n".join(files.values())
    assert dhcp in text and all(mac in text.lower() for mac in macs)


# What YAML takes for something else; those that can't be a user's name are names of machines only.
TRAPS = ["123", "no", "on", "null", "007", "2024-01-01", "1e3", "0x1f", "yes", "true"]
KEY = "ssh-ed25519 " + "A" * 68 + " caf\u00e9 \U0001f600: {no} #1, 'x' \"y\" \\ud83d"


@pytest.mark.parametrize("name", TRAPS)
def test_each_text_of_the_seed_is_read_as_it_was_written(tmp_path, name):
    user = name if name.isalpha() else "alice"
    spec = wanted(
        name=name, users=[{"name": user, "ssh_authorized_keys": [KEY], "shell": "/bin/sh"}], packages=["on" + name]
    )
    files = seed.files(spec)
    meta_data = yaml.safe_load(files["meta-data"])
    assert meta_data == {"instance-id": spec["uuid"], "local-hostname": name}
    config = yaml.safe_load(files["user-data"])
    assert config["hostname"] == name and config["packages"] == ["on" + name]
    assert config["users"][1]["name"] == user and config["users"][1]["ssh_authorized_keys"] == [KEY]
    assert config == seed.user_data(spec)
    assert yaml.safe_load(files["network-config"])["ethernets"]["eth0"]["match"] == {"macaddress": spec["mac"]}
    # as tiny's sed reads it
    (line,) = [line for line in files["meta-data"].splitlines() if line.startswith("local-hostname: ")]
    assert "".join(char for char in line.partition(": ")[2] if char.isalnum() or char in ".-") == name
    written = tmp_path / "user-data"
    written.write_text(files["user-data"], encoding="utf-8")
    assert "Valid cloud-config" in cloud_init("schema", "--config-file", written)


def test_the_seed_is_json_as_well():
    files = seed.files(wanted(name="no"))
    assert json.loads(files["user-data"].partition("\n")[2])["hostname"] == "no"
