# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""References, manifests, digests, and the forms of names."""

from __future__ import annotations

import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils import _names
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import reference

DIGEST = "sha256:" + "0a" * 32
HOSTILE = ["", "../x", "a/b", "a;b", "<x>", "x'", "-x", ".x", "x" * 300, "x\n", "x y", "\u0130", "x\0", None, 5, ["x"]]


def manifest(**changes):
    return {
        "name": "tiny",
        "version": "1",
        "layers": [DIGEST],
        "virtual_size": 10,
        "size": 5,
        "recipe_digest": DIGEST,
        "user": "root",
        "python": None,
        "created": "2030-01-01T00:00:00+00:00",
        **changes,
    }


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("what", ["name", "version", "user", "suite", "package", "module", "digest", "url"])
def test_hostile_names(what, value):
    with pytest.raises(GridError) as caught:
        _names.check(what, value)
    assert caught.value.code == f"invalid_{what}"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("name", "debian-12"),
        ("version", "1.0_RC1"),
        ("package", "g++"),
        ("package", "nano=7.2-1+deb12u1"),
        ("package", "libc6:amd64"),
        ("suite", "bookworm"),
        ("digest", DIGEST),
        ("url", "https://198.18.0.1/x?y=%20"),
        ("mirror", "http://198.18.0.1/debian"),
        ("mirror", "deb [trusted=yes] copy:///srv/repo ./"),
        ("cmdline", ""),
    ],
)
def test_good_names(what, value):
    assert _names.check(what, value) == value


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://198.18.0.1/x", "https://198.18.0.1/x y", "javascript:x", "//x"]
)
def test_other_addresses(url):
    with pytest.raises(GridError, match="not a valid url"):
        _names.check("url", url)


@pytest.mark.parametrize(
    "path", ["", "/", "x", "./x", "/a/../b", "/a//b", "/a/", "//a", "/a\nb", "/a\0", "/" + "x" * 5000, None, 7]
)
def test_bad_paths(path):
    with pytest.raises(GridError) as caught:
        _names.check_path("path", path)
    assert caught.value.code == "invalid_path"


def test_reference():
    assert reference.split_reference(reference.reference("tiny", "1")) == ("tiny", "1")
    for value in ("tiny", "tiny@", "@1", "tiny@1@2", "../x@1", "tiny@../1", None, 5):
        with pytest.raises(GridError) as caught:
            reference.split_reference(value)
        assert caught.value.code == "invalid_reference"


def test_recipe_digest_is_of_the_meaning_not_of_the_order():
    one, two = reference.recipe_digest({"a": 1, "b": [1, 2]}), reference.recipe_digest({"b": [1, 2], "a": 1})
    assert one == two != reference.recipe_digest({"a": 1, "b": [2, 1]})
    assert reference.version_of(one) == one[7:19]


def test_layer_file():
    assert reference.layer_digest(reference.layer_file(DIGEST)) == DIGEST
    for file in (
        "sha256-" + "0A" * 32 + ".qcow2",
        "sha256-1.qcow2",
        "x",
        "sha256-" + "0a" * 32 + ".qcow2.part",
        "../sha256-" + "0a" * 32 + ".qcow2",
    ):
        assert reference.layer_digest(file) is None
    with pytest.raises(GridError):
        reference.layer_file("sha256:../../x")


def test_manifest():
    given = manifest()
    assert reference.parse_manifest(json.dumps({**given, "other": 1}), "tiny@1.json") == given
    assert reference.parse_manifest(given) == given


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff\xfe",
        "[" * 100000,
        "x" * (2**20 + 1),
        '{"name": "tiny"}',
        manifest(name="../x"),
        manifest(version="a/b"),
        manifest(name=None),
        manifest(layers=[]),
        manifest(layers=[DIGEST, DIGEST]),
        manifest(layers=["/etc/passwd"]),
        manifest(layers=["sha256:../x"]),
        manifest(layers="x"),
        manifest(layers=[None]),
        manifest(layers=[f"sha256:{number:064x}" for number in range(65)]),
        manifest(size=-1),
        manifest(size=True),
        manifest(size="5"),
        manifest(size=2**63),
        manifest(virtual_size=0),
        manifest(virtual_size=2**64),
        manifest(user=5),
        manifest(python=["x"]),
    ],
)
def test_hostile_manifests(value):
    with pytest.raises(GridError) as caught:
        reference.parse_manifest(value)
    assert caught.value.code == "invalid_manifest"


def test_manifest_under_another_name():
    with pytest.raises(GridError, match="says that it is"):
        reference.parse_manifest(manifest(), "other@1.json")
