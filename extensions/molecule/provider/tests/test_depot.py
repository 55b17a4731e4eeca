# SPDX-License-Identifier: GPL-3.0-or-later
"""The depot, and what the grid's other hosts may do with it: read its images and nothing else."""

from __future__ import annotations

import hashlib
import json
import shlex

import pytest

testinfra_hosts = ["ssh://mol-bookworm", "ssh://mol-trixie"]

ADDRESSES = {"mol-bookworm": "198.18.0.41", "mol-trixie": "198.18.0.42"}
CONTENT = b"a layer\n"
LAYER = f"sha256-{hashlib.sha256(CONTENT).hexdigest()}.qcow2"
SSH = (
    "ssh -i /etc/virtuoso/transfer_ed25519 -o BatchMode=yes -o IdentitiesOnly=yes "
    "-o StrictHostKeyChecking=yes -o UserKnownHostsFile=/etc/virtuoso/known_hosts"
)


@pytest.fixture
def peer(host, connect):
    """The other host."""
    (name,) = ADDRESSES.keys() - {host.backend.get_hostname()}
    return connect(name)


@pytest.fixture
def other(peer):
    """The other host's address."""
    return ADDRESSES[peer.backend.get_hostname()]


@pytest.fixture
def layer(host, peer):
    """A layer in the depots of both hosts."""
    path = f"/var/lib/virtuoso/images/layers/{LAYER}"
    for one in (host, peer):
        one.check_output(f"echo '{CONTENT.decode().strip()}' > {path} && chmod 0640 {path}")
    yield LAYER
    for one in (host, peer):
        one.check_output(f"rm -f {path} /root/{LAYER}")


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        ("/var/lib/virtuoso", "root", "virtuoso", 0o711),
        ("/var/lib/virtuoso/images", "root", "virtuoso", 0o2750),
        ("/var/lib/virtuoso/images/layers", "root", "virtuoso", 0o2750),
        ("/var/lib/virtuoso/images/manifests", "root", "virtuoso", 0o2750),
        ("/var/lib/virtuoso/machines", "root", "virtuoso", 0o711),
        ("/var/lib/virtuoso-transfer/.ssh", "root", "virtuoso", 0o750),
        ("/etc/virtuoso", "root", "root", 0o755),
    ],
)
def test_directory_belongs_to_whom_it_should(host, path, user, group, mode):
    directory = host.file(path)
    assert directory.is_directory
    assert (directory.user, directory.group, oct(directory.mode)) == (user, group, oct(mode))


def test_qemu_may_read_images(host, layer):
    assert "virtuoso" in host.user("libvirt-qemu").groups
    assert host.run(f"runuser -u libvirt-qemu -- cat /var/lib/virtuoso/images/layers/{layer}").rc == 0
    assert host.run(f"runuser -u nobody -- cat /var/lib/virtuoso/images/layers/{layer}").rc != 0


def test_reader_has_no_password_and_cannot_change_what_admits_it(host):
    assert host.check_output("getent shadow virtuoso").split(":")[1] == "*"
    keys = host.file("/var/lib/virtuoso-transfer/.ssh/authorized_keys")
    assert (keys.user, keys.group, keys.mode) == ("root", "virtuoso", 0o640)
    lines = [line for line in keys.content_string.splitlines() if not line.startswith("#")]
    assert len(lines) == len(ADDRESSES)
    sender = "/usr/bin/python3 -I /usr/local/lib/virtuoso/send.py --parallel 4 /var/lib/virtuoso/images"
    assert all(line.startswith(f'restrict,command="{sender}" ssh-ed25519 ') for line in lines)
    program = host.file("/usr/local/lib/virtuoso/send.py")
    assert (program.user, program.group, program.mode) == ("root", "root", 0o644)


def ask(host, other, **request):
    """What the sender of the other host answers to a request."""
    done = host.run(f"echo {shlex.quote(json.dumps(request))} | {SSH} virtuoso@{other} send")
    assert done.rc == 0, done.stderr
    return done.stdout_bytes


def test_host_reads_a_layer_of_another(host, other, layer):
    digest = layer.replace("-", ":").removesuffix(".qcow2")
    said = ask(host, other, get="ranges", digest=digest, ranges=[[0, len(CONTENT)]])
    assert said.startswith(b"\0" + len(CONTENT).to_bytes(4, "big") + CONTENT) and b'"end": true' in said


@pytest.mark.parametrize(
    "command",
    ["", "id", "cat /etc/passwd", "/bin/sh -i", "scp -f /etc/passwd", "rsync --server --sender . ../machines/"],
)
def test_no_other_command_is_run(host, other, command):
    done = host.run(f"{SSH} virtuoso@{other} '{command}' < /dev/null")
    assert done.stdout == ""


def test_nothing_can_be_written(host, peer, other, layer):
    for command in (f"cat > images/layers/{layer}", f"scp -t /var/lib/virtuoso/images/layers/{layer}"):
        host.run(f"echo other | {SSH} virtuoso@{other} '{command}'")
    assert peer.file(f"/var/lib/virtuoso/images/layers/{layer}").content == CONTENT
    assert peer.run("runuser -u virtuoso -- touch /var/lib/virtuoso/images/layers/new").rc != 0


@pytest.mark.parametrize(
    "request_",
    [
        {"get": "index", "digest": "sha256:../../../etc/passwd"},
        {"get": "manifest", "name": "../../../../etc/passwd"},
        {"get": "/etc/passwd"},
    ],
)
def test_nothing_outside_the_images_can_be_read(host, other, request_):
    said = ask(host, other, **request_)
    assert b"root:" not in said and b"bad_request" in said


def test_no_port_is_forwarded(host, other):
    # ssh's own status would look like one of the tests' own connection.
    done = host.run(f"{SSH} -W 127.0.0.1:22 virtuoso@{other} < /dev/null || exit 1")
    assert done.rc == 1
    assert "administratively prohibited" in done.stderr
