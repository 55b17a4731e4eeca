# SPDX-License-Identifier: GPL-3.0-or-later
"""The depot, and what the grid's other hosts may do with it: read its images and nothing else."""

from __future__ import annotations

import hashlib

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
        ("/var/lib/virtuoso-transfer/.ssh", "virtuoso", "virtuoso", 0o700),
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
    assert all(line.startswith('restrict,command="/usr/bin/rrsync -ro /var/lib/virtuoso/images" ssh-ed25519 ') for line in lines)


def test_host_reads_a_layer_of_another(host, other, layer):
    host.check_output(f"rsync -e '{SSH}' virtuoso@{other}:layers/{layer} /root/{layer}")
    assert host.file(f"/root/{layer}").sha256sum == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("command", ["id", "cat /etc/passwd", "/bin/sh -i", "scp -f /etc/passwd", "rsync --server --sender . ../machines/"])
def test_no_other_command_is_run(host, other, command):
    done = host.run(f"{SSH} virtuoso@{other} '{command}'")
    assert done.rc != 0
    assert "uid=" not in done.stdout and "root:" not in done.stdout


def test_nothing_can_be_written(host, peer, other, layer):
    host.check_output(f"echo other > /root/{layer}")
    assert host.run(f"rsync -e '{SSH}' --ignore-times /root/{layer} virtuoso@{other}:layers/{layer}").rc != 0
    assert host.run(f"rsync -e '{SSH}' /root/{layer} virtuoso@{other}:layers/new").rc != 0
    assert peer.file(f"/var/lib/virtuoso/images/layers/{layer}").content == CONTENT
    assert not peer.file("/var/lib/virtuoso/images/layers/new").exists


def test_nothing_outside_the_images_can_be_read(host, other):
    for path in ("../machines/", "/etc/passwd", "/var/lib/virtuoso/"):
        assert "root:" not in host.run(f"rsync -e '{SSH}' virtuoso@{other}:{path} /root/out && cat /root/out").stdout
        assert host.run("test -e /root/out").rc != 0


def test_no_port_is_forwarded(host, other):
    # ssh's own status would look like one of the tests' own connection.
    done = host.run(f"{SSH} -W 127.0.0.1:22 virtuoso@{other} < /dev/null || exit 1")
    assert done.rc == 1
    assert "administratively prohibited" in done.stderr
