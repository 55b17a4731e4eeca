# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of a provider, from texts of the kernel and of libvirt."""

from __future__ import annotations

import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import capabilities

CAPABILITIES = """<capabilities><guest><os_type>hvm</os_type><arch name='x86_64'>
<machine maxCpus='255'>pc-q35-7.2</machine><machine canonical='pc-q35-7.2'>q35</machine><machine>pc-q35-10.0</machine>
<machine>pc-i440fx-7.2</machine><machine>pc-q35-4.0.1</machine><domain type='qemu'/>
<domain type='kvm'><machine>pc-q35-9.1</machine></domain></arch></guest>
<guest><arch name='i686'><machine>pc-q35-1.0</machine></arch></guest></capabilities>"""


def test_machine_types_are_sorted_as_versions():
    assert capabilities.machine_types(CAPABILITIES) == ["pc-q35-4.0.1", "pc-q35-7.2", "pc-q35-9.1", "pc-q35-10.0"]


def test_cpu_flags():
    assert capabilities.cpu_flags("processor : 0\nflags\t\t: fpu vmx sse2\nvmx flags : vnmi\n") >= {
        "fpu",
        "vmx",
        "sse2",
    }
    assert capabilities.cpu_flags("model name : x\n") == set()


def test_meminfo_is_bytes():
    assert capabilities.meminfo("MemTotal:   2048 kB\nHugePages_Total:  3\nMemAvailable: 1 kB\n") == {
        "MemTotal": 2**21,
        "MemAvailable": 1024,
    }


@pytest.mark.parametrize(
    "content, kind", [("kvm\n", "kvm"), ("qemu", "qemu"), ("", "seen"), ("nonsense\n", "seen"), (None, "seen")]
)
def test_the_record_of_the_trial_decides(tmp_path, monkeypatch, content, kind):
    record = tmp_path / "virtualization"
    if content is not None:
        record.write_text(content)
    monkeypatch.setattr(capabilities, "RECORD", str(record))
    monkeypatch.setattr(capabilities, "_cheap", lambda: capabilities.Virtualization("seen", ""))
    assert capabilities.virtualization().kind == kind


def test_a_trial_that_fails_means_emulation(monkeypatch):
    monkeypatch.setattr(capabilities, "_cheap", lambda: capabilities.Virtualization("kvm", ""))
    monkeypatch.setattr(capabilities, "boots", lambda kind: "a guest did not run within 10 s")
    assert capabilities.probe() == ("qemu", "/dev/kvm is there, but a guest did not run within 10 s")


def test_images_by_digest_with_damaged_manifests(tmp_path):
    layers, manifests = tmp_path / "images/layers", tmp_path / "images/manifests"
    layers.mkdir(parents=True)
    manifests.mkdir()
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    (layers / ("sha256-" + "1" * 64 + ".qcow2")).touch()
    for name, layer in (("tiny@1", first), ("same@2", first), ("gone@1", second)):
        image, version = name.split("@")
        (manifests / f"{name}.json").write_text(json.dumps({"name": image, "version": version, "layers": [layer]}))
    (manifests / "bad.json").write_text("{")
    (manifests / "worse.json").write_text("[]")
    assert capabilities.images(str(tmp_path)) == [{"digest": first, "names": ["same@2", "tiny@1"]}]
