# SPDX-License-Identifier: GPL-3.0-or-later
"""A running machine on its provider."""

from __future__ import annotations

import hashlib
import json
import re
import shlex

import pytest

testinfra_hosts = ["ssh://provider1", "ssh://provider2"]

VIRSH = "virsh --connect qemu:///system"
LAYERS = "/var/lib/virtuoso/images/layers"
GREET = """
import json, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5) as link:
    version = link.recv(12)
    link.sendall(version)
    count = link.recv(1)[0]
    print(json.dumps({"version": version.decode(), "types": list(link.recv(count))}))
"""


@pytest.fixture
def port(domain):
    """The TCP port of its display."""
    (graphics,) = domain.iterfind("devices/graphics")
    assert graphics.get("type") == "vnc"
    return int(graphics.get("port"))


def test_it_runs(host, machine):
    assert host.check_output(f"{VIRSH} domstate {machine['uuid']}") == "running"
    assert host.check_output(f"{VIRSH} domname {machine['uuid']}") == machine["name"]


def test_it_is_what_was_ordered(domain):
    """The list's 1 GiB, not the 128 MiB of the earlier order."""
    assert (domain.findtext("memory"), domain.find("memory").get("unit")) == (str(2**20), "KiB")
    # One processor, and room for another to be plugged in.
    assert (domain.find("vcpu").get("current"), domain.findtext("vcpu")) == ("1", "2")


def test_its_domain_tells_what_it_is(domain, machine):
    """Lose the store, and the domain's metadata still say it."""
    (told,) = domain.iterfind("metadata/{urn:virtuoso:machine:1}machine")
    text = json.dumps([dict(element.attrib, text=element.text) for element in told.iter()])
    for part in (machine["uuid"], "alice", "tiny@", "molecule"):
        assert part in text


def test_its_disk_is_an_overlay_on_a_layer_named_by_its_digest(host, disk):
    info = json.loads(host.check_output(f"qemu-img info --force-share --output json -f qcow2 {disk}/disk.qcow2"))
    assert info["format"] == "qcow2"
    assert info["backing-filename-format"] == "qcow2"
    digest = re.fullmatch(rf"{LAYERS}/sha256-([0-9a-f]{{64}})\.qcow2", info["backing-filename"])[1]
    layer = host.file(info["backing-filename"])
    assert host.file(f"{LAYERS}/sha256-{digest}.index").sha256sum == digest
    assert (layer.user, layer.group, oct(layer.mode)) == ("root", "virtuoso", oct(0o640))
    base = json.loads(host.check_output(f"qemu-img info --output json -f qcow2 {info['backing-filename']}"))
    assert "backing-filename" not in base


def test_both_providers_have_the_same_layer(host, connect, disk):
    name = host.check_output(
        f"basename $(qemu-img info --force-share -f qcow2 {disk}/disk.qcow2 | sed -n 's/^backing file: *//p')"
    )
    assert all(connect(provider).file(f"{LAYERS}/{name}").exists for provider in ("home1", "provider1", "provider2"))


def test_its_files_are_kept_from_others(host, disk):
    assert host.run(f"runuser -u nobody -- cat {disk}/disk.qcow2").rc != 0
    assert host.run(f"runuser -u nobody -- ls {disk}").rc != 0


def test_it_answers_by_http(host, machine):
    """Its web page tells its name. It may have an address before it has a web server."""
    patient = "curl --fail --silent --show-error --retry 30 --retry-delay 1 --retry-all-errors --max-time 5"
    assert f"<h1>{machine['name']}</h1>" in host.check_output(f"{patient} http://{machine['address']}/")


def test_its_display_listens_on_loopback_only(host, port):
    listening = host.check_output(f"ss --no-header --listening --numeric --tcp 'sport = {port}'").splitlines()
    assert [line.split()[3] for line in listening] == [f"127.0.0.1:{port}"]


def test_its_display_wants_a_password(host, port):
    greeting = json.loads(host.check_output(f"python3 -c {shlex.quote(GREET)} {port}"))
    assert greeting["version"].startswith("RFB 003.")
    # RFC 6143, section 7.2: 1 is no authentication, 2 is VNC authentication.
    assert greeting["types"] == [2]


def test_password_is_on_no_command_line(host, build):
    password = (build / "display_password").read_text(encoding="ascii").split()[0]
    assert re.fullmatch("[A-Za-z0-9]{8}", password)
    assert password not in host.check_output("ps -eww -o args=")
    assert (build / "display_password").stat().st_mode & 0o077 == 0


def test_its_screenshot_is_a_picture(build, machine):
    picture = (build / "screenshots" / f"{machine['uuid']}.png").read_bytes()
    # PNG, section 5.2 and 11.2.2: signature, then the header's width and height.
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture[12:16] == b"IHDR"
    width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))
    assert width >= 640 and height >= 400
    assert len(set(hashlib.sha256(picture[at : at + 64]).digest() for at in range(0, len(picture), 64))) > 4
