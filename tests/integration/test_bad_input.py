# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people get wrong and what others mean badly: a clear error each, nothing lost, the rest of the list served.

One play has all the bad entries beside good ones; each test looks at what became of one of them.
"""

from __future__ import annotations

import re
import typing as t

import pytest
from walking import PROVIDERS, Grid, Run, image_files, on_host, staged_images

BAD_FILES = "/var/lib/virtuoso-bad-input"
PORT = 8099
SERVER = f"http://198.18.0.11:{PORT}"
WRONG = "sha256:" + "0" * 64

# Small foreign images on the image server: a good one, one that reads another file, one whose data is in another file,
# and one that is no qcow2 at all; the good one is served by HTTP for a while.
PREPARE = f"""
    set -e
    rm -rf {BAD_FILES}; mkdir -p {BAD_FILES}/served; cd {BAD_FILES}
    qemu-img create -q -f qcow2 served/good.qcow2 4M
    qemu-img create -q -f qcow2 -b {BAD_FILES}/served/good.qcow2 -F qcow2 backing.qcow2
    qemu-img create -q -f qcow2 -o data_file={BAD_FILES}/outside.raw data.qcow2 4M
    head -c 1048576 /dev/zero > raw.qcow2
    systemctl stop it-bad-input.service 2>/dev/null || true
    systemd-run --quiet --collect --unit it-bad-input --property RuntimeMaxSec=300 \
        python3 -m http.server {PORT} --bind 198.18.0.11 --directory {BAD_FILES}/served
    sha256sum served/good.qcow2 | cut -d ' ' -f 1
"""
FORGET = f"""
    systemctl stop it-bad-input.service
    rm -rf {BAD_FILES}
    cd /var/lib/virtuoso/images
    for manifest in manifests/it-*; do
        [ -e "$manifest" ] || continue
        layer=$(sed -n 's/.*"sha256:\\([0-9a-f]*\\)".*/\\1/p' "$manifest" | head -n 1)
        rm -f "$manifest"
        grep -qs "$layer" manifests/* || rm -f "layers/sha256-$layer.qcow2" "layers/sha256-$layer.index"
    done
"""

GOOD = ("it-bad-good", "it-bad-fetched")
NAMES = ["<x>", "it's", "a;b", "../../x", "x" * 300, "-rf", "ünï", "a\nb", ""]
# entry's fields -> code, and what its message tells
FIELDS = {
    "it-bad-image": ({"image": "nosuch"}, "unknown_image", "tiny"),
    "it-bad-version": ({"image": "tiny@nosuch"}, None, "nosuch"),
    "it-bad-negative": ({"memory": "-1 GiB"}, "invalid_size", "'-1 GiB'"),
    "it-bad-absurd": ({"memory": "999999 PiB"}, "invalid_size", "'999999 PiB'"),
    "it-bad-unit": ({"disk": "2 gallons"}, "invalid_size", "'2 gallons'"),
    "it-bad-vcpus": ({"vcpus": -2}, "invalid_vcpus", "-2"),
    "it-bad-many-vcpus": ({"vcpus": 10**9}, "invalid_vcpus", "1000000000"),
    "it-bad-field": ({"colour": "red"}, "invalid_order", "colour"),
    "it-bad-small-disk": ({"disk": "1 MiB"}, "disk_too_small", "96 MiB"),
    "it-bad-network": ({"network": "nosuch"}, "no_provider", "nosuch"),
    "it-bad-memory": ({"memory": "1 TiB"}, "no_provider", "1 TiB"),
    "it-bad-disk": ({"disk": "60 TiB"}, "no_provider", "60 TiB"),
    "it-bad-cpus": ({"vcpus": 1000}, "no_provider", "1000"),
    "it-bad-checksum": ({"image": "it-wrong"}, "checksum_mismatch", WRONG),
    "it-bad-no-checksum": ({"image": "it-none"}, "invalid_source", "checksum"),
    "it-bad-missing-url": ({"image": "it-missing"}, "source_missing", "404"),
    "it-bad-backing": ({"image": "it-backing"}, "image_has_backing_file", "served/good.qcow2"),
    "it-bad-data-file": ({"image": "it-data"}, "image_has_data_file", "external"),
    "it-bad-raw": ({"image": "it-raw"}, "image_wrong_format", "qcow2"),
    "it-bad-no-file": ({"image": "it-gone"}, "source_missing", f"{BAD_FILES}/gone.qcow2"),
}


def images(checksum: str) -> dict[str, t.Any]:
    """A catalogue of images that must not come to be, and a good one by HTTP."""
    names = ("backing", "data", "raw", "gone")
    return {
        **{f"it-{name}": {"source": {"type": "file", "path": f"{BAD_FILES}/{name}.qcow2"}} for name in names},
        "it-fetched": {"user": "root", "source": {"type": "url", "url": f"{SERVER}/good.qcow2", "checksum": checksum}},
        "it-wrong": {"source": {"type": "url", "url": f"{SERVER}/good.qcow2", "checksum": WRONG}},
        "it-none": {"source": {"type": "url", "url": f"{SERVER}/good.qcow2"}},
        "it-missing": {"source": {"type": "url", "url": f"{SERVER}/nosuch.qcow2", "checksum": WRONG}},
    }


@pytest.fixture(scope="module")
def grid(make_grid) -> Grid:
    return make_grid("it-bad")


@pytest.fixture(scope="module")
def checksum() -> t.Iterator[str]:
    """The foreign images are there while the tests run; the good one's checksum."""
    try:
        yield "sha256:" + on_host("home1", PREPARE).strip()
    finally:
        on_host("home1", FORGET, check=False)


@pytest.fixture(scope="module")
def run(grid: Grid, checksum: str) -> Run:
    """One deployment of all of them. The guest of the fetched image is an empty disk, which gets no address."""
    machines: list[t.Any] = [{"name": GOOD[0], **grid.machine}]
    machines += [{"name": name, **grid.machine} for name in NAMES]
    machines += [{"name": name, **grid.machine, **fields} for name, (fields, _code, _tells) in FIELDS.items()]
    machines += [{"name": "it-bad-twice", **grid.machine}] * 2
    machines += ["just text", {"image": "tiny"}, {"name": "it-bad-no-image"}]
    machines += [{"name": GOOD[1], **grid.machine, "image": "it-fetched"}]
    return grid.play("deploy", machines=machines, virtuoso_images=images(checksum), virtuoso_address_timeout=25)


def test_the_good_ones_are_served_and_the_play_fails(grid: Grid, run: Run):
    assert run.returncode != 0
    grid.running_once(GOOD)
    assert run.row(GOOD[0])["state"] == "running" and run.row(GOOD[0])["addresses"]
    # It runs as well, but there is nothing on its disk that could ask for an address.
    assert run.failures()[GOOD[1]]["code"] == "no_address"
    assert run.row(GOOD[1])["image"]["name"].startswith("it-fetched@")
    assert run.report["failure"]["code"] == "some_failed"
    assert "it-bad-good" not in run.report["msg"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_bad_field_is_told(run: Run, name: str):
    _fields, code, tells = FIELDS[name]
    row = run.row(name)
    assert row["failed"]
    assert row["failure"]["code"] == (code or row["failure"]["code"]), row["msg"]
    assert name in row["msg"] and tells in row["msg"]
    assert row["failure"]["remedy"] in row["msg"]
    assert row["msg"] in run.report["msg"]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_told_and_goes_nowhere(grid: Grid, run: Run, name: str):
    failed = [row for row in run.report["machines"] if row.get("failure", {}).get("code") == "invalid_name"]
    shown = repr(name if len(name) <= 60 else name[:57] + "...")
    assert [row for row in failed if shown in row["msg"] and "lower-case letters" in row["failure"]["remedy"]], (
        run.report["msg"]
    )
    assert len(failed) == len(NAMES)
    assert not [line for line in run.text if name and len(name) == 300 and name in line]
    assert name not in grid.uuids()


def test_the_same_name_twice_fails_for_both(grid: Grid, run: Run):
    rows = run.rows("it-bad-twice")
    assert [row["failure"]["code"] for row in rows] == ["duplicate_name"] * 2
    assert all("it-bad-twice" in row["msg"] for row in rows)
    assert "it-bad-twice" not in grid.uuids()


def test_what_is_no_machine_is_told(run: Run):
    told = [row["msg"] for row in run.report["machines"] if row.get("failure", {}).get("code") == "invalid_order"]
    for text in ("just text", "name", "image"):
        assert [msg for msg in told if text in msg], told


@pytest.mark.parametrize("name", ["it-bad-memory", "it-bad-disk", "it-bad-cpus"])
def test_each_provider_has_its_reason_with_numbers(run: Run, name: str):
    reasons = run.failures()[name]["reasons"]
    assert sorted(reasons) == sorted(PROVIDERS)
    for provider, reason in reasons.items():
        assert len(re.findall(r"\d", reason)) >= 2, reason
        assert f"{provider}: {reason}" in run.row(name)["msg"] or reason in run.row(name)["msg"]


def test_no_bad_image_is_left(run: Run):
    assert run.report
    for host in ("home1", *PROVIDERS):
        left = [file for file in image_files(host) if file.startswith("it-")]
        assert not [file for file in left if not file.startswith("it-fetched@")], f"{host}: {left}"
    assert staged_images("home1") == set()


def test_all_of_it_again_changes_nothing_and_fails_alike(grid: Grid, run: Run, checksum: str):
    machines = [{"name": name, **grid.machine} for name in (GOOD[0], "<x>")]
    machines.append({"name": "it-bad-memory", **grid.machine, "memory": "1 TiB"})
    before = grid.uuids()
    again = grid.play(
        "deploy", machines=machines, virtuoso_images=images(checksum), virtuoso_only=[GOOD[0], "it-bad-memory"]
    )
    assert again.returncode != 0
    assert not any(again.changed.values())
    assert {failure["code"] for failure in again.failures().values()} == {"invalid_name", "no_provider"}
    assert grid.uuids() == before
    grid.running_once(GOOD)
    assert run.returncode == again.returncode
