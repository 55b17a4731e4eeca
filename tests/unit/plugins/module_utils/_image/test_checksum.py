# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums as publishers tell them, and addresses as they may be shown."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import address, checksum
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.checksum import Checksum

A, B, LONG = "0a" * 32, "0b" * 32, "0c" * 64
URL = "https://198.18.0.1/images/12/disk%201.qcow2"
SUMS = "https://198.18.0.1/images/12/SHA256SUMS"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (f"sha256:{A}", Checksum("sha256", A)),
        (f"SHA256:{A.upper()}", Checksum("sha256", A)),
        (f"sha-512: {LONG}", Checksum("sha512", LONG)),
        (A, Checksum("sha256", A)),
        (f" {LONG.upper()}\n", Checksum("sha512", LONG)),
        (f"sha256:{SUMS}", Checksum("sha256", address=SUMS)),
    ],
)
def test_forms(given, read):
    assert checksum.parse(given) == read
    assert checksum.parse(str(read)) == read


@pytest.mark.parametrize(
    "given",
    [
        "",
        None,
        5,
        f"md5:{'0' * 32}",
        f"sha1:{'0' * 40}",
        "0" * 40,
        f"sha256:{LONG}",
        f"sha512:{A}",
        "sha256:",
        "sha256:x",
    ]
    + ["sha256:ftp://198.18.0.1/x", f"{A}²", SUMS],
)
def test_others_are_refused(given):
    with pytest.raises(GridError) as caught:
        checksum.parse(given)
    assert caught.value.code == "invalid_checksum" and "sha256:DIGITS" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        f"{B}  other\n{A}  disk 1.qcow2\n",
        f"{A} *disk 1.qcow2",
        f"{A.upper()}  ./12/disk 1.qcow2",
        f"SHA256 (disk 1.qcow2) = {A}\nSHA256 (other) = {B}",
        f"SHA512 (disk 1.qcow2) = {LONG}\nSHA256 (disk 1.qcow2) = {A}",
        f"# disk 1.qcow2: 5 bytes\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{A}  disk 1.qcow2\n",
        f"{A}\n",
    ],
)
def test_lists(text):
    assert checksum.from_list(text, Checksum("sha256", address=SUMS), URL) == Checksum("sha256", A)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "checksum_missing"),
        (f"{B}  other", "checksum_missing"),
        (f"{LONG}  disk 1.qcow2", "checksum_missing"),
        (f"{A}  disk 1.qcow2\n{B}  old/disk 1.qcow2", "checksum_ambiguous"),
        ("<html>not found</html>", "checksum_missing"),
    ],
)
def test_lists_that_do_not_tell(text, code):
    with pytest.raises(GridError) as caught:
        checksum.from_list(text, Checksum("sha256", address="https://a:s3cret@198.18.0.1/S"), URL)
    assert caught.value.code == code and "disk 1.qcow2" in caught.value.msg and "s3cret" not in caught.value.msg


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://198.18.0.1:8443/a?x=1&key_id=&y", "https://198.18.0.1:8443/a?x=1&key_id=&y"),
        ("https://alice:p%40ss@198.18.0.1/a", "https://alice:***@198.18.0.1/a"),
        ("https://t0ken@198.18.0.1/a", "https://***@198.18.0.1/a"),
        ("https://[2001:db8::1]:80/a?X-Amz-Signature=abc&v=2", "https://[2001:db8::1]:80/a?X-Amz-Signature=***&v=2"),
        ("https://h/a?access_token=abc&api-key=d", "https://h/a?access_token=***&api-key=***"),
        ("https://h:port/a", "https://***"),
    ],
)
def test_what_opens_a_door_is_not_shown(url, shown):
    assert address.shown(url) == shown


def test_errors_of_libraries_are_censored():
    url = "https://alice:p%40ss@h/a?sig=abc"
    assert address.censored("no host in p%40ss, p@ss and abc", url) == "no host in ***, *** and ***"
