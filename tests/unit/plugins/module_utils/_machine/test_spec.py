# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders as users write them, good and bad."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    GROWTH,
    parse_order,
    reference,
    split_image,
)

KEY = "ssh-ed25519 " + "A" * 68 + " alice@home"
GOOD = {"name": "web1", "owner": "alice", "image": "tiny"}


def test_an_order_gets_its_defaults():
    spec = parse_order({"name": "web1", "image": "tiny"}, {"owner": "alice"})
    assert spec == {
        "name": "web1",
        "owner": "alice",
        "image": "tiny",
        "vcpus": 1,
        "memory": 512 * 2**20,
        "disk": None,
        "packages": [],
        "users": [],
        "network": "virtuoso",
        "display": "vnc",
        "performance": {},
        "goal": "balance",
        "tags": [],
        "start": "whole",
    }


def test_equal_wishes_are_equal_values():
    one = parse_order({**GOOD, "memory": "1 GiB", "packages": ["vim", "git", "vim"], "tags": ["b", "a"]})
    other = parse_order({**GOOD, "memory": "1024MiB", "packages": ["git", "vim"], "tags": ["a", "b"], "disk": None})
    assert one == other


def test_users_and_keys_are_kept():
    spec = parse_order({**GOOD, "users": [{"name": "alice", "ssh_authorized_keys": [KEY + "\n"]}]})
    assert spec["users"] == [{"name": "alice", "ssh_authorized_keys": [KEY], "sudo": True, "shell": "/bin/bash"}]


@pytest.mark.parametrize(
    "name",
    [
        "<web>",
        "it's",
        "a;b",
        "../../etc/passwd",
        "x" * 300,
        "",
        "-a",
        "a-",
        "Web1",
        "web 1",
        "web1\n",
        "w\u00e9b",
        "{{ 7*7 }}",
        "a_b",
        None,
        5,
        ["x"],
    ],
)
def test_hostile_names_are_refused(name):
    with pytest.raises(GridError) as caught:
        parse_order({**GOOD, "name": name})
    assert caught.value.code in ("invalid_name", "invalid_order")
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "field, value, code",
    [
        ("memory", "-1 GiB", "invalid_size"),
        ("memory", "1 B", "invalid_size"),
        ("memory", "9999 PiB", "invalid_size"),
        ("disk", "0", "invalid_size"),
        ("disk", "1000 TiB", "invalid_size"),
        ("vcpus", 0, "invalid_vcpus"),
        ("vcpus", -3, "invalid_vcpus"),
        ("vcpus", 10**9, "invalid_vcpus"),
        ("vcpus", "many", "invalid_order"),
        ("image", "../tiny", "invalid_image"),
        ("image", "sha256:12", "invalid_image"),
        ("owner", "a<b", "invalid_owner"),
        ("network", "br0;reboot", "invalid_network"),
        ("packages", ["vim; reboot"], "invalid_package"),
        ("packages", ["-o=x"], "invalid_package"),
        ("tags", ["a b"], "invalid_tag"),
        ("goal", "fame", "invalid_order"),
        ("display", "spice", "invalid_order"),
        ("performance", {"cpu_shares": 0}, "invalid_cpu_shares"),
        ("performance", {"disk_io": {"read_iops": 0}}, "invalid_disk_io"),
        ("performance", {"disk_io": {"read_bytes": "1 KiB"}}, "invalid_size"),
        ("performance", {"disk_io": {"speed": 1}}, "invalid_order"),
        ("performance", {"turbo": 1}, "invalid_order"),
        ("performance", {"reservation": {"period": "1 s"}}, "invalid_order"),
        ("performance", {"reservation": {"period": "2 s", "slice": "1 s"}}, "invalid_duration"),
        ("performance", {"reservation": {"period": "10 ms", "slice": "11 ms"}}, "invalid_duration"),
        ("performance", {"reservation": {"period": "10 ms", "slice": "0.5 ms"}}, "invalid_duration"),
        (
            "performance",
            {"reservation": {"period": "10 ms", "slice": "1 ms", "memory": "1 TiB"}},
            "invalid_reservation",
        ),
        ("performance", {"reservation": {"period": "10 ms", "slice": "1 ms", "to": "soon"}}, "invalid_time"),
        (
            "performance",
            {"reservation": {"period": 1000, "slice": 1000, "from": "2027-02-01", "to": "2027-02-01"}},
            "invalid_reservation",
        ),
        ("site", "a/b", "invalid_site"),
        ("architecture", "x86-64; x", "invalid_architecture"),
        ("features", ["a b"], "invalid_feature"),
        ("affinity", ["Tag:x"], "invalid_affinity"),
        ("affinity", ["web1"], "impossible_affinity"),
        ("anti_affinity", ["tag:"], "invalid_affinity"),
        ("users", [{"name": "root; x"}], "invalid_user"),
        ("users", [{"name": "alice"}, {"name": "alice"}], "invalid_user"),
        ("users", [{"name": "alice", "ssh_authorized_keys": ['command="x" ' + KEY]}], "invalid_ssh_key"),
        ("users", [{"name": "alice", "ssh_authorized_keys": [KEY + "\nssh-rsa x"]}], "invalid_ssh_key"),
        ("colour", "red", "invalid_order"),
    ],
)
def test_bad_fields_are_refused_by_name(field, value, code):
    with pytest.raises(GridError) as caught:
        parse_order({**GOOD, field: value})
    assert caught.value.code == code
    assert "web1" in str(caught.value) and caught.value.remedy


def test_fields_about_the_place_are_only_there_where_they_say_something():
    assert not {"site", "architecture", "features", "affinity", "anti_affinity"} & set(parse_order(GOOD))
    given = {
        "site": "north",
        "architecture": "aarch64",
        "features": ["kvm", "gpu", "gpu"],
        "affinity": [],
        "anti_affinity": ["tag:web", "db1"],
    }
    spec = parse_order({**GOOD, **given})
    assert {field: spec[field] for field in given if field in spec} == {
        "site": "north",
        "architecture": "aarch64",
        "features": ["gpu", "kvm"],
        "anti_affinity": ["db1", "tag:web"],
    }
    assert parse_order(spec) == spec


def test_with_and_apart_of_the_same_is_impossible():
    with pytest.raises(GridError) as caught:
        parse_order({**GOOD, "affinity": ["db1", "tag:x"], "anti_affinity": ["db1"]})
    assert caught.value.code == "impossible_affinity" and "db1" in str(caught.value)


def test_a_reservation_in_its_one_form():
    reservation = {"period": "0.1 s", "slice": "20ms", "memory": "100.5 MiB", "to": "2027-03-01T08:00:00+01:00"}
    spec = parse_order({**GOOD, "performance": {"reservation": reservation}})
    assert spec["performance"] == {
        "reservation": {"period": 100000, "slice": 20000, "memory": 101 * 2**20, "to": "2027-03-01T07:00:00Z"}
    }
    assert parse_order(spec) == spec


@pytest.mark.parametrize("entry", [None, "web1", 5, [], [GOOD]])
def test_what_is_no_mapping_is_refused(entry):
    with pytest.raises(GridError) as caught:
        parse_order(entry)
    assert caught.value.code == "invalid_order"


def test_images_are_taken_apart():
    assert split_image("tiny") == ("tiny", None, None)
    assert split_image("tiny@2") == ("tiny", "2", None)
    assert split_image("sha256:" + "0" * 64) == (None, None, "sha256:" + "0" * 64)
    assert reference("x") == "urn:uuid:x"


def test_fields_of_growth_are_there_only_where_they_say_something():
    plain = parse_order({"name": "web1", "image": "tiny", "owner": "alice"})
    assert not set(GROWTH) & set(plain)
    given = {
        "vcpus_max": 4,
        "memory_max": "1 GiB",
        "extra_networks": ["b", "a", "b"],
        "boot": ["network", "disk"],
        "autostart": False,
    }
    given["description"] = " my web "
    wanted = parse_order({"name": "web1", "image": "tiny", "owner": "alice", "memory": "513 MiB", **given})
    assert {field: wanted[field] for field in GROWTH} == {
        "vcpus_max": 4,
        "memory_max": 2**30,
        "extra_networks": ["a", "b"],
        "boot": ["network", "disk"],
        "autostart": False,
        "description": "my web",
    }
    # Memory that can be added comes in steps of 2 MiB, and what is there at the start is counted in them.
    assert wanted["memory"] == 514 * 2**20
    assert parse_order({**wanted, "memory": str(wanted["memory"]), "memory_max": str(wanted["memory_max"])}) == wanted


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vcpus": 4, "vcpus_max": 2}, "invalid_vcpus_max"),
        ({"vcpus_max": 2000}, "invalid_vcpus_max"),
        ({"memory": "1 GiB", "memory_max": "512 MiB"}, "invalid_memory_max"),
        ({"memory_max": "much"}, "invalid_size"),
        ({"extra_networks": ["virtuoso"]}, "invalid_network"),
        ({"extra_networks": ["../x"]}, "invalid_network"),
        ({"boot": ["tape"]}, "invalid_order"),
        ({"autostart": "perhaps"}, "invalid_order"),
        ({"description": "x" * 501}, "invalid_description"),
        ({"description": "a\x1b[2J"}, "invalid_description"),
    ],
)
def test_what_can_not_be_of_growth(change, code):
    with pytest.raises(GridError) as caught:
        parse_order({"name": "web1", "image": "tiny", "owner": "alice", **change})
    assert caught.value.code == code


@pytest.mark.parametrize("value", [7, 7.5, True, False])
@pytest.mark.parametrize(
    "put",
    [
        lambda value: {"name": value},
        lambda value: {"owner": value},
        lambda value: {"image": value},
        lambda value: {"network": value},
        lambda value: {"site": value},
        lambda value: {"description": value},
        lambda value: {"tags": ["web", value]},
        lambda value: {"tags": value},
        lambda value: {"packages": [value]},
        lambda value: {"affinity": [value]},
        lambda value: {"extra_networks": [value]},
        lambda value: {"users": [{"name": value}]},
        lambda value: {"users": [{"name": "alice", "shell": value}]},
        lambda value: {"users": [{"name": "alice", "ssh_authorized_keys": [value]}]},
        lambda value: {"address": {"method": "static", "ip": value}},
        lambda value: {"address": {"method": "static", "ip": "192.0.2.7/24", "search": [value]}},
    ],
)
def test_what_yaml_made_of_a_text_without_quotes_is_refused(put, value):
    with pytest.raises(GridError) as caught:
        parse_order({**GOOD, **put(value)})
    assert caught.value.remedy.startswith("Quote it") and "where a text is wanted" in caught.value.msg


@pytest.mark.parametrize("change", [{"name": None}, {"users": [{"name": None}]}, {"tags": [None]}])
def test_null_is_no_text(change):
    with pytest.raises(GridError) as caught:
        parse_order({**GOOD, **change})
    assert "is null" in caught.value.msg and '"null"' in caught.value.remedy


def test_a_size_may_be_a_number_of_bytes_but_no_truth_value():
    assert parse_order({**GOOD, "memory": 2**29, "disk": 2**31})["memory"] == 2**29
    with pytest.raises(GridError):
        parse_order({**GOOD, "memory": True})


@pytest.mark.parametrize(
    ("change", "unsupported", "fields"),
    [
        ({"colour": 1}, "colour", "of a machine are: name, owner, image"),
        (
            {"users": [{"name": "alice"}, {"name": "bob", "passwd": "geheim"}]},
            "users[1].passwd",
            "of an entry of users are: name, ssh_authorized_keys, sudo, shell",
        ),
        ({"address": {"mac": "x"}}, "address.mac", "of address are: method, ip, gateway"),
        (
            {"performance": {"disk_io": {"speed": 1}}},
            "performance.disk_io.speed",
            "of performance.disk_io are: read_bytes",
        ),
    ],
)
def test_a_field_that_is_not_there_is_named_with_those_that_are(change, unsupported, fields):
    with pytest.raises(GridError) as caught:
        parse_order({**GOOD, **change})
    assert caught.value.msg == f"Unsupported field: '{unsupported}'"
    assert fields in caught.value.remedy and "geheim" not in str(caught.value)


def keys(*given):
    return parse_order({**GOOD, "users": [{"name": "alice", "ssh_authorized_keys": list(given)}]})["users"][0][
        "ssh_authorized_keys"
    ]


def test_a_file_of_keys_is_taken_whole():
    other = KEY.replace("AA", "BB") + ", at work"
    file = f"# my keys\r\n\r\n{KEY}\r\n  {other}\n# old:\n#{KEY}\n{KEY}\n"
    assert keys(file) == [KEY, other]
    spec = parse_order({**GOOD, "users": [{"name": "alice", "ssh_authorized_keys": file}]})
    assert spec["users"][0]["ssh_authorized_keys"] == [KEY, other]
    assert parse_order(spec) == spec


@pytest.mark.parametrize(
    ("given", "said", "remedy"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", "a private key", ".pub"),
        ("~/.ssh/id_ed25519.pub", "the name of a file", "lookup"),
        ('from="10.0.0.0/8" ' + KEY, "options before it", "without options"),
        ("ssh-ed25519", "no SSH key", "type, key in base64, comment"),
    ],
)
def test_what_is_no_key_is_told_apart(given, said, remedy):
    with pytest.raises(GridError) as caught:
        keys(KEY, given)
    assert caught.value.code == "invalid_ssh_key" and "user alice" in caught.value.msg
    assert said in caught.value.msg and remedy in caught.value.remedy and "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("name", ["br_lan", "Default", "vlan.100", "a" * 50])
def test_networks_have_the_names_that_libvirt_lets_them_have(name):
    assert parse_order({**GOOD, "network": name, "extra_networks": ["San_2"]})["network"] == name


@pytest.mark.parametrize("shell", ["bash", "~/bin/zsh", "/bin/sh:x", "/bin/a b"])
def test_a_shell_is_a_path_in_the_machine(shell):
    with pytest.raises(GridError) as caught:
        parse_order({**GOOD, "users": [{"name": "alice", "shell": shell}]})
    assert caught.value.code == "invalid_shell"
