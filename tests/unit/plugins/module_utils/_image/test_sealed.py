# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes through TLS comes out as it was, in pieces of any size; who isn't known doesn't get in, and an end is an
end."""

from __future__ import annotations

import concurrent.futures
import datetime
import io
import os
import socket
import ssl

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host.sealed import PIECE, Sealed
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAME = "source.example"


def _certificate(directory, name):
    """A certificate that vouches for itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=1)).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
    )
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        key, hashes.SHA256()
    )
    words = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / f"{name}.pem"
    path.write_bytes(words + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module", name="known")
def _known(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    return {name: _certificate(directory, name) for name in (NAME, "destination.example", "stranger.example")}


def _context(known, own, trusted, server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(known[own])
    context.load_verify_locations(known[trusted])
    return context


@pytest.fixture(name="pool")
def _pool():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool


def _serve(plain, known, work):
    plain.settimeout(20)
    with Sealed(plain, _context(known, NAME, "destination.example", True), server_side=True) as sealed:
        return work(sealed)


def _connected(plain, known, own="destination.example", name=NAME):
    plain.settimeout(20)
    return Sealed(plain, _context(known, own, NAME, False), server_hostname=name)


def test_all_that_is_sent_comes_and_requests_are_read_as_lines(known, pool):
    text = os.urandom(3 * PIECE + 777)

    def answer(sealed):
        with io.BufferedReader(sealed) as lines:
            assert lines.readline() == b"give\n"
            for at in range(0, len(text), PIECE + 100):
                sealed.sendall(memoryview(text)[at : at + PIECE + 100])
            return lines.readline()

    near, far = socket.socketpair()
    served = pool.submit(_serve, far, known, answer)
    with _connected(near, known) as sealed:
        sealed.sendall(b"give\n")
        came = bytearray(len(text))
        at, sizes = 0, [1, 5, 2**20]
        while at < len(came):
            got = sealed.readinto(memoryview(came)[at : at + sizes[min(at, 2)]])
            assert got
            at += got
    assert came == text and served.result(20) == b"", "what is closed is at its end for the other"


def test_silence_is_an_error_and_not_an_end(known, pool):
    near, far = socket.socketpair()
    served = pool.submit(_serve, far, known, lambda sealed: sealed.readinto(bytearray(10)))
    with _connected(near, known) as sealed:
        sealed.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sealed.readinto(bytearray(10))
        sealed.sendall(b"x")
    assert served.result(20) == 1


@pytest.mark.parametrize(("own", "name"), [("stranger.example", NAME), ("destination.example", "other.example")])
def test_who_is_not_known_does_not_get_in(known, pool, own, name):
    near, far = socket.socketpair()
    served = pool.submit(_serve, far, known, lambda sealed: sealed.readinto(bytearray(10)))
    with near, pytest.raises(OSError):
        # The client of TLS 1.3 hears of a certificate that isn't wanted when it reads
        _connected(near, known, own, name).readinto(bytearray(1))
    with pytest.raises(ssl.SSLError):
        served.result(20)


def test_who_speaks_no_tls_is_sent_away(known, pool):
    near, far = socket.socketpair()
    served = pool.submit(_serve, far, known, lambda sealed: None)
    with near:
        near.sendall(b"GET / HTTP/1.0\r\n\r\n" * 4)
        with pytest.raises(ssl.SSLError):
            served.result(20)


def test_what_was_wrong_is_told_though_nobody_hears_of_it(known):
    context, goes = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), goes, server_hostname=NAME).do_handshake()
    near, far = socket.socketpair()
    with near:
        near.sendall(goes.read())
    with far, pytest.raises(ssl.SSLError):
        _serve(far, known, lambda sealed: None)
