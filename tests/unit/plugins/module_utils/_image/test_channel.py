# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS to the real sender on loopback, with certificates of a real authority; SSH wherever that can't be."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import ipaddress
import os
import socket
import subprocess
import sys
import threading

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import channel, link, plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host import send
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DIGEST = "sha256:" + "a" * 64


class Authority:
    """Makes certificates, and directories that have them under QEMU's names."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self.sign(
            self.name, self.key.public_key(), [(x509.BasicConstraints(ca=True, path_length=0), True)]
        )

    def sign(self, subject, public, extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
        )
        builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
            now + datetime.timedelta(days=1)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def directory(self, path, address="127.0.0.1", trusts=None):
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
        certificate = self.sign(subject, key.public_key(), [(names, False), (uses, False)])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.mkdir()
        (path / "ca-cert.pem").write_bytes((trusts or self).certificate)
        for end in ("server", "client"):
            (path / f"{end}-cert.pem").write_bytes(certificate)
            (path / f"{end}-key.pem").write_bytes(private)
        return str(path)


class Server:
    """What systemd does for the socket unit: the sender for each connection, which is its standard input."""

    def __init__(self, images, tls):
        self.argv = [
            sys.executable,
            "-I",
            send.__file__,
            "--tls",
            tls,
            "--user",
            getpass.getuser(),
            "--slots",
            str(images.parent),
            str(images),
        ]
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.senders = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            with connection:
                self.senders.append(
                    subprocess.Popen(self.argv, stdin=connection, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                )

    def close(self):
        self.socket.close()
        for sender in self.senders:
            sender.kill()
            sender.wait()
            sender.stderr.close()


@pytest.fixture(scope="module", name="authority")
def _authority():
    return Authority("grid")


@pytest.fixture(name="images")
def _images(tmp_path):
    images = tmp_path / "images"
    (images / "layers").mkdir(parents=True)
    (images / "manifests").mkdir()
    (images / "manifests" / "x@1.json").write_bytes(b"{}")
    return images


@pytest.fixture(name="server")
def _server(authority, images, tmp_path):
    server = Server(images, authority.directory(tmp_path / "server"))
    yield server
    server.close()


@pytest.fixture(name="here")
def _here(authority, tmp_path):
    return authority.directory(tmp_path / "client")


@pytest.fixture(autouse=True)
def _ssh(images, monkeypatch):
    """What answers instead of SSH is the same sender on a pipe."""
    argv = [sys.executable, "-I", send.__file__, "--slots", str(images.parent), str(images)]
    monkeypatch.setattr(plan, "ssh_argv", lambda dummy: argv)


def source(port, directory, host="127.0.0.1"):
    return plan.Source("home1", host, 22, "virtuoso", "/k", "/h", None, port, directory)


def test_a_source_is_read_by_tls(server, here, images):
    (images / "layers" / f"{DIGEST.replace(':', '-')}.qcow2").write_bytes(content := os.urandom(3 * 2**20))
    with link.Link(source(server.port, here)) as opened:
        assert opened.manifest("x@1") == b"{}"
        ranges = [(0, 2**20), (2**20 + 5, 7), (2**21, 2**20)]
        wanted = b"".join(content[at : at + length] for at, length in ranges)
        assert b"".join(opened.ranges(DIGEST, ranges, 0, None)) == wanted
        assert b"".join(opened.ranges(DIGEST, ranges, 1, None)) == wanted
        with pytest.raises(GridError) as caught:
            opened.manifest("y@1")
        assert caught.value.code == "manifest_missing"
        assert opened.channel.NAME == "tls" and len(server.senders) == 1
    assert server.senders[0].wait(10) == 0


def by_ssh(wanted):
    with link.Link(wanted) as opened:
        return opened.manifest("x@1") == b"{}" and opened.channel.NAME == "ssh"


def test_where_nothing_listens_it_goes_by_ssh(here):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert by_ssh(source(port, here)) and by_ssh(source(0, here))


def test_without_a_certificate_of_our_own_it_goes_by_ssh(server, tmp_path):
    assert by_ssh(source(server.port, str(tmp_path / "nowhere")))


def test_a_source_of_another_authority_is_not_believed(server, authority, tmp_path):
    other = Authority("other")
    assert by_ssh(source(server.port, authority.directory(tmp_path / "mine", trusts=other)))


def test_a_source_at_another_address_is_not_believed(images, authority, here, tmp_path):
    server = Server(images, authority.directory(tmp_path / "elsewhere", "192.0.2.1"))
    assert by_ssh(source(server.port, here))
    server.close()


def test_who_has_a_certificate_of_another_authority_is_not_let_in(server, authority, tmp_path):
    foreign = Authority("other").directory(tmp_path / "foreign", trusts=authority)
    assert by_ssh(source(server.port, foreign))
    assert server.senders[0].wait(10) == 0
    # for the journal
    assert b"the connection ended: " in server.senders[0].stderr.read()


def test_who_speaks_no_tls_gets_nothing(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b'{"get": "manifest", "name": "x@1"}\n')
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := plain.recv(4096):
                answer += more
    assert b"{}" not in answer and b"hello" not in answer


def test_a_port_of_somebody_else_is_left(here, monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert by_ssh(source(silent.getsockname()[1], here))


def test_a_connection_that_breaks_is_told(server, here):
    with link.Link(source(server.port, here)) as opened:
        assert opened.manifest("x@1") == b"{}"
        server.senders[0].kill()
        server.senders[0].wait()
        with pytest.raises(GridError) as caught:
            for dummy in range(3):
                opened.manifest("x@1")
    assert caught.value.code == "source_unreachable" and "home1" in caught.value.msg
    assert caught.value.details["source"] == "home1" and "ssh" not in str(caught.value)


def test_silence_is_told(server, here, images, monkeypatch):
    monkeypatch.setattr(link, "SILENCE", 0.3)
    (images / "layers" / f"{DIGEST.replace(':', '-')}.qcow2").write_bytes(bytes(2**20))
    with link.Link(source(server.port, here)) as opened:
        with pytest.raises(GridError) as caught:
            list(opened.ranges(DIGEST, [(0, 2**20)], 0, 1000.0))
    assert caught.value.code == "source_unreachable" and "nothing for 0.3 s" in caught.value.msg
