# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are what their content is: made by the real programs, then recognised, unpacked or refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import zipfile

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import raw_disk, unpack
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import kinds
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

MIB = 2**20
# Holes at begin and end, and in the middle something that doesn't compress
CONTENT = bytes(3 * MIB) + os.urandom(MIB) + b"x" * MIB + bytes(2 * MIB + 512)
PACK = {
    "xz": lzma.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout,
}
OUTSIDE = ("vmdk", "vdi", "vhdx", "vpc", "qed")


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(name="raw", scope="module")
def _raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("kinds") / "disk.raw"
    path.write_bytes(CONTENT)
    return path


def kind_of(path):
    data = path.read_bytes()
    return kinds.recognise(data[: kinds.HEAD], data[-kinds.TAIL :])


@pytest.mark.parametrize("kind", PACK)
def test_what_is_compressed_is_unpacked_with_its_holes(tmp_path, kind):
    packed, target = tmp_path / "image", tmp_path / "disk"
    packed.write_bytes(PACK[kind](CONTENT))
    assert kind_of(packed) == kind
    assert raw_disk.unpacked(str(packed), str(tmp_path), Progress(None)) == str(tmp_path / "unpacked.part")
    unpack.unpack(str(packed), kind, str(target), Progress(None))
    assert target.read_bytes() == CONTENT and target.stat().st_blocks * 512 < 3 * MIB


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("how", ["cut", "garbled"])
def test_what_is_damaged_is_told(tmp_path, kind, how):
    data = PACK[kind](CONTENT)
    half = len(data) // 2
    (tmp_path / "image").write_bytes(data[:half] if how == "cut" else data[:half] + b"\xff" * 999 + data[half + 999 :])
    with pytest.raises(GridError) as caught:
        unpack.unpack(str(tmp_path / "image"), kind, str(tmp_path / "disk"), Progress(None))
    assert caught.value.code == "image_damaged" and kind in caught.value.msg


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_bounded(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(unpack, "MOST", 4 * MIB)
    (tmp_path / "image").write_bytes(PACK[kind](bytes(64 * MIB)))
    with pytest.raises(GridError) as caught:
        unpack.unpack(str(tmp_path / "image"), kind, str(tmp_path / "disk"), Progress(None))
    assert caught.value.code == "image_too_large"


def test_the_disk_is_not_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "_EVERY", MIB)
    monkeypatch.setattr(unpack, "_RESERVE", 2**60)
    (tmp_path / "image").write_bytes(gzip.compress(CONTENT))
    with pytest.raises(GridError) as caught:
        unpack.unpack(str(tmp_path / "image"), "gzip", str(tmp_path / "disk"), Progress(None))
    assert caught.value.code == "disk_full"


@pytest.mark.parametrize("form", OUTSIDE)
@pytest.mark.parametrize("said", ["raw", "qcow2"])
def test_other_formats_are_refused_and_it_is_told_how_to_convert_them(tmp_path, raw, form, said):
    path = tmp_path / "disk.img"
    qemu_img("convert", "-O", form, raw, path)
    kind = kind_of(path)
    assert kind == {"vpc": "vhd"}.get(form, form)
    with pytest.raises(GridError) as caught:
        raw_disk.import_file(str(path), said, str(tmp_path / "out"), Progress(None))
    assert caught.value.code == "image_wrong_format" and f"qemu-img convert -f {form}" in caught.value.remedy


def test_a_fixed_vhd_is_known_by_its_end(tmp_path, raw):
    path = tmp_path / "disk.vhd"
    qemu_img("convert", "-O", "vpc", "-o", "subformat=fixed", raw, path)
    assert path.read_bytes()[:MIB] == CONTENT[:MIB] and kind_of(path) == "vhd"


def archive(path, kind):
    if kind == "tar":
        with tarfile.open(path, "w") as file:
            file.addfile(tarfile.TarInfo("disk.raw"), io.BytesIO())
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("disk.raw", CONTENT[:4096])


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_are_refused(tmp_path, kind):
    archive(tmp_path / "a", kind)
    assert kind_of(tmp_path / "a") == kind
    with pytest.raises(GridError) as caught:
        raw_disk.import_file(str(tmp_path / "a"), "raw", str(tmp_path / "out"), Progress(None))
    assert caught.value.code == "image_wrong_format" and "Unpack" in caught.value.remedy


@pytest.mark.parametrize("text", ["<!DOCTYPE html><p>404", "\n <HTML><body>", '\ufeff<?xml version="1.0"?><Error/>'])
def test_a_page_about_the_file_is_not_the_file(text):
    assert kinds.recognise(text.encode()) == "page" and "address" in kinds.advice("page")


def test_what_comes_out_is_judged_as_well(tmp_path, raw):
    qemu_img("convert", "-O", "qcow2", raw, tmp_path / "disk.qcow2")
    for again in (False, True):
        data = lzma.compress((tmp_path / "disk.qcow2").read_bytes())
        (tmp_path / "image").write_bytes(gzip.compress(data) if again else data)
        image = raw_disk.unpacked(str(tmp_path / "image"), str(tmp_path), Progress(None))
        for said, works in (("raw", False), ("qcow2", not again)):
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            if works:
                raw_disk.import_file(image, said, str(tmp_path / "out.raw"), Progress(None))
                assert (tmp_path / "out.raw").read_bytes() == CONTENT
            else:
                with pytest.raises(GridError) as caught:
                    raw_disk.import_file(image, said, str(tmp_path / "out.raw"), Progress(None))
                assert caught.value.code == "image_wrong_format"


def test_disks_are_disks(raw):
    assert kind_of(raw) == "raw"
    assert kinds.recognise(b"") == "raw" and kinds.recognise(b"BZhello") == "raw"
    assert kinds.recognise(bytes(510) + b"\x55\xaa") == "raw"
