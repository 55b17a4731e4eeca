# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of the catalogue: fields, sources, and which versions they get."""

from __future__ import annotations

import os

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import catalogue

MIB = 2**20
CHECKSUM = "sha256:" + "0a" * 32
URL = {"type": "url", "url": "https://198.18.0.1/a.qcow2", "checksum": CHECKSUM}
PACKAGES = {"type": "packages", "suite": "bookworm", "size": "1 GiB", "packages": ["nano"]}


def code_of(value):
    with pytest.raises(GridError) as caught:
        catalogue.parse_entry(value)
    return caught.value.code


def test_blank():
    wanted = catalogue.parse_entry({"name": "scratch", "source": {"type": "blank", "size": "10 MiB"}})
    assert wanted.source == {"type": "blank", "size": 10 * MIB}
    assert wanted.version == wanted.recipe_digest[7:19]
    assert (wanted.user, wanted.python) == (None, None)


def test_a_version_of_numbers_is_text():
    assert (
        catalogue.parse_entry({"name": "scratch", "version": 1.5, "source": {"type": "blank", "size": 1048576}}).version
        == "1.5"
    )


def test_user_and_python_are_no_part_of_the_version():
    one = catalogue.parse_entry({"name": "x", "source": PACKAGES})
    two = catalogue.parse_entry({"name": "y", "user": "debian", "python": "/usr/bin/python3", "source": PACKAGES})
    assert one.recipe_digest == two.recipe_digest


def test_the_same_from_another_mirror_is_the_same():
    one = catalogue.parse_entry({"name": "x", "source": URL})
    two = catalogue.parse_entry({"name": "x", "source": {**URL, "url": "http://198.18.0.2/b"}})
    assert one.version == two.version


def test_a_changed_file_is_a_new_version(tmp_path):
    path = tmp_path / "a.qcow2"
    path.write_bytes(b"x")
    source = {"type": "file", "path": str(path)}
    one = catalogue.parse_entry({"name": "x", "source": source})
    os.utime(path, (1, 1))
    assert one.source["format"] == "qcow2"
    assert one.version != catalogue.parse_entry({"name": "x", "source": source}).version


def test_a_builder_that_changed_is_a_new_version(monkeypatch):
    one = catalogue.parse_entry({"name": "x", "source": PACKAGES}).version
    monkeypatch.setattr(catalogue, "BUILDER", catalogue.BUILDER + 1)
    assert one != catalogue.parse_entry({"name": "x", "source": PACKAGES}).version


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({}, "invalid_name"),
        ({"name": "../x", "source": PACKAGES}, "invalid_name"),
        ({"name": "x" * 300, "source": PACKAGES}, "invalid_name"),
        ({"name": "x<", "source": PACKAGES}, "invalid_name"),
        ({"name": "x", "source": PACKAGES, "size": 1}, "invalid_image"),
        ({"name": "x", "version": "../1", "source": PACKAGES}, "invalid_version"),
        ({"name": "x", "user": "root; x", "source": PACKAGES}, "invalid_user"),
        ({"name": "x", "python": "python3", "source": PACKAGES}, "invalid_path"),
        ({"name": "x"}, "invalid_source"),
        ({"name": "x", "source": "blank"}, "invalid_source"),
        ({"name": "x", "source": {"type": ["blank"]}}, "invalid_source"),
        ({"name": "x", "source": {"type": "docker"}}, "invalid_source"),
        ({"name": "x", "source": {"type": "blank"}}, "invalid_source"),
        ({"name": "x", "source": {"type": "blank", "size": "1 GiB", "path": "/x"}}, "invalid_source"),
        ({"name": "x", "source": {"type": "blank", "size": "65 TiB"}}, "invalid_size"),
        ({"name": "x", "source": {"type": "blank", "size": "-1 GiB"}}, "invalid_size"),
        ({"name": "x", "source": {"type": "file", "path": "/nowhere/x"}}, "source_missing"),
        ({"name": "x", "source": {"type": "file", "path": "/dev/null"}}, "source_missing"),
        ({"name": "x", "source": {"type": "file", "path": "x"}}, "invalid_path"),
        ({"name": "x", "source": {"type": "file", "path": "/x", "format": "vmdk"}}, "invalid_source"),
        ({"name": "x", "source": {"type": "url", "url": "https://198.18.0.1/x"}}, "invalid_source"),
        ({"name": "x", "source": {**URL, "checksum": "md5:1234"}}, "invalid_checksum"),
        ({"name": "x", "source": {**URL, "checksum": "0a" * 31}}, "invalid_checksum"),
        ({"name": "x", "source": {**URL, "url": "file:///etc/passwd"}}, "invalid_url"),
        ({"name": "x", "source": {**PACKAGES, "path": "/x"}}, "invalid_recipe"),
    ],
)
def test_refused(value, code):
    assert code_of(value) == code


def test_a_missing_checksum_is_explained():
    with pytest.raises(GridError) as caught:
        catalogue.parse_source({"type": "url", "url": "https://198.18.0.1/x"})
    assert "sha256:" in caught.value.remedy


def test_the_same_checksum_is_the_same_image_however_it_is_written():
    digits = CHECKSUM.partition(":")[2]
    forms = [CHECKSUM, digits, digits.upper(), f"SHA256:{digits.upper()}", f"sha-256: {digits}"]
    read = [catalogue.parse_entry({"name": "x", "source": {**URL, "checksum": form}}) for form in forms]
    assert len({wanted.recipe_digest for wanted in read}) == 1


def test_a_mistyped_address_does_not_tell_its_password():
    with pytest.raises(GridError) as caught:
        catalogue.parse_entry({"name": "x", "source": {**URL, "url": "ftp://alice:s3cret@198.18.0.1/x"}})
    assert caught.value.code == "invalid_url" and "s3cret" not in str(caught.value.result())
