# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a provider is given, checked again there; the seed; addresses that guests tell."""

from __future__ import annotations

import io
import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import (
    check_password,
    cpu_tuning,
    label,
    parse_entry,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import seed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.addresses import of_interfaces, usable

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"
KEYS = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA alice@home", 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5BBBB bob\'s "own": #key']
USERS = [
    {"name": "alice", "ssh_authorized_keys": [KEYS[0]]},
    {"name": "bob", "ssh_authorized_keys": [KEYS[1], KEYS[0]], "sudo": False},
]
WHOLE = {
    "uuid": UUID,
    "name": "web1",
    "owner": "alice",
    "image": {"name": "tiny@1", "digest": "sha256:" + "a" * 64},
    "users": USERS,
}


def test_a_whole_entry_gets_defaults_and_an_address():
    uuid, name, spec = parse_entry(
        {**WHOLE, "memory": "536870912", "generation": "2", "provider": "p1", "performance": {"cpu_shares": 7}}
    )
    assert (uuid, name) == (UUID, "web1")
    assert (spec["memory"], spec["generation"], spec["cpu_shares"], spec["disk"]) == (2**29, 2, 7, None)
    assert spec["image"] == WHOLE["image"] and spec["mac"].count(":") == 5


def test_what_its_networks_carry():
    spec = parse_entry({**WHOLE, "extra_networks": ["lan", "san"], "mtu": "1450", "mtus": {"lan": "1400"}})[2]
    assert spec["mtu"] == 1450 and [spec["cards"][name].mtu for name in ("lan", "san")] == [1400, None]
    for wrong in ({"mtus": 1400}, {"mtus": {"lan": "many"}}):
        with pytest.raises(GridError) as caught:
            parse_entry({**WHOLE, **wrong})
        assert caught.value.code == "invalid_mtu"


RESERVED = {"period": 100000, "slice": 20000, "from": "2027-02-01T00:00:00Z", "to": "2027-03-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("time", "holds"),
    [
        ("2027-01-31T23:59:59Z", False),
        (RESERVED["from"], True),
        ("2027-02-28T23:59:59Z", True),
        (RESERVED["to"], False),
    ],
)
def test_a_reservation_limits_and_weighs_while_it_holds(time, holds):
    tuned = {"cpu_shares": 10000, "cpu_limit": {"period": 100000, "quota": 20000}}
    assert cpu_tuning({"reservation": RESERVED}, time) == (tuned if holds else {"cpu_shares": None, "cpu_limit": None})
    assert cpu_tuning({"reservation": RESERVED, "cpu_shares": 7}, time)["cpu_shares"] == 7


def test_a_reservation_without_times_always_holds():
    spec = parse_entry({**WHOLE, "performance": {"reservation": {"period": "10 ms", "slice": "10 ms"}}})[2]
    assert spec["cpu_limit"] == {"period": 10000, "quota": 10000}
    assert parse_entry(WHOLE)[2]["cpu_limit"] is None


@pytest.mark.parametrize("entry", [{"uuid": UUID}, {"name": "web1"}, {"uuid": UUID, "name": "web1", "image": None}])
def test_an_entry_that_only_names_the_machine(entry):
    assert parse_entry(entry) == (entry.get("uuid"), entry.get("name"), None)


@pytest.mark.parametrize(
    "code, entry",
    [
        ("invalid_order", "web1"),
        ("invalid_order", {}),
        ("invalid_uuid", {"uuid": "../../etc"}),
        ("invalid_uuid", {"uuid": "{" + UUID + "}"}),
        ("invalid_uuid", {**WHOLE, "uuid": None}),
        ("invalid_name", {"uuid": UUID, "name": "<x>"}),
        ("invalid_name", {**WHOLE, "name": "a" * 300}),
        ("invalid_name", {**WHOLE, "name": "../x"}),
        ("invalid_image", {**WHOLE, "image": "tiny"}),
        ("invalid_image", {**WHOLE, "image": {"name": "tiny"}}),
        ("invalid_image", {**WHOLE, "image": {"name": "tiny@1", "digest": "sha256:../../../x"}}),
        ("invalid_site", {**WHOLE, "site": "a/b"}),
        ("invalid_generation", {**WHOLE, "generation": -1}),
        ("invalid_python", {**WHOLE, "python": "python3; rm"}),
        ("invalid_order", {**WHOLE, "colour": "red"}),
        ("invalid_size", {**WHOLE, "memory": "-1"}),
        ("invalid_vcpus", {**WHOLE, "vcpus": 0}),
    ],
)
def test_bad_entries(code, entry):
    with pytest.raises(GridError) as caught:
        parse_entry(entry)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "entry, text",
    [({"name": "web1"}, "web1"), ({"uuid": UUID}, UUID), ("x", "(without name)"), ({"name": "y" * 99}, "y" * 63)],
)
def test_label(entry, text):
    assert label(entry) == text


@pytest.mark.parametrize("password", ["", "123456789", "with space", "caf\u00e9", None, 12345678])
def test_bad_passwords_are_not_repeated(password):
    with pytest.raises(GridError) as caught:
        check_password(password)
    assert caught.value.code == "invalid_password" and (not password or str(password) not in str(caught.value))


def test_seed_is_what_cloud_init_reads():
    spec = parse_entry({**WHOLE, "packages": ["nginx"]})[2]
    files = seed.files(spec)
    assert files["meta-data"] == f'instance-id: "{UUID}"\nlocal-hostname: "web1"\n'
    head, dummy, body = files["user-data"].partition("\n")
    config = json.loads(body)
    assert head == "#cloud-config"
    assert (
        config["hostname"] == "web1"
        and config["packages"] == ["nginx"]
        and config["package_update"] is True
        and config["ssh_pwauth"] is False
    )
    assert config["users"][0] == "default" and "sudo" in config["users"][1] and "sudo" not in config["users"][2]
    # who may not become root doesn't get at the image's own user either
    assert config["ssh_authorized_keys"] == [KEYS[0]]
    assert files["authorized_keys"].splitlines() == KEYS
    assert json.loads(files["network-config"])["version"] == 2


def test_seed_without_packages_updates_none():
    assert "package_update" not in seed.user_data(parse_entry(WHOLE)[2])


def test_seed_has_no_empty_lists():
    config = seed.user_data(parse_entry({**WHOLE, "users": [{"name": "carol"}]})[2])
    assert "ssh_authorized_keys" not in config and "ssh_authorized_keys" not in config["users"][1]


def test_seed_image_holds_the_files():
    pycdlib = pytest.importorskip("pycdlib")
    spec = parse_entry(WHOLE)[2]
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(seed.image(spec)))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    for name, text in seed.files(spec).items():
        for path in ({"rr_path": f"/{name}"}, {"joliet_path": f"/{name}"}):
            data = io.BytesIO()
            iso.get_file_from_iso_fp(data, **path)
            assert data.getvalue().decode() == text


def test_addresses_of_guests_are_not_trusted():
    told = [
        "fe80::1",
        "127.0.0.1",
        "2001:db8::5",
        "198.18.0.9",
        "; rm -rf /",
        None,
        "0.0.0.0",
        "224.0.0.1",
        "198.18.0.9",
    ]
    assert usable(told) == ["198.18.0.9", "2001:db8::5"]


def test_only_the_machines_own_card_counts():
    interfaces = {
        "lo": {"hwaddr": "00:00:00:00:00:00", "addrs": [{"addr": "127.0.0.1"}]},
        "docker0": {"hwaddr": "02:42:00:00:00:00", "addrs": [{"addr": "198.18.9.9"}]},
        "eth0": {"hwaddr": "D2:FF:BF:00:00:01", "addrs": [{"addr": "198.18.0.9"}]},
        "eth1": {"hwaddr": None, "addrs": None},
    }
    assert of_interfaces(interfaces, "d2:ff:bf:00:00:01") == ["198.18.0.9"]
    assert of_interfaces(None, "d2:ff:bf:00:00:01") == []
