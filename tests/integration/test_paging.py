# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that page from an export until their image is there: they boot, lose their source, settle, and are killed in between.

The guest reads its disk without end, so that it stands still as soon as what it pages from is gone.
"""

from __future__ import annotations

import os

import guests
import pytest
from conftest import task
from walking import until

SERVER = os.environ.get("VIRTUOSO_TEST_IMAGE_SERVER", "home1")
RAW = "/var/lib/virtuoso-test-paging.raw"
DEPOT = "/var/lib/virtuoso"


def shell(host, script):
    done = task(host, "ansible.builtin.shell", {"_raw_params": script})
    assert not done.get("failed"), done
    return done["stdout"]


def address(host):
    # what the firewall and the certificates know a host by
    return task(host, "ansible.builtin.debug", {"msg": "{{ virtuoso_address | default(ansible_host) }}"})["msg"]


@pytest.fixture(scope="module", name="image")
def _image():
    # Behind the boot sector 2 MiB that are not zeros
    make = f"import sys; sys.stdout.buffer.write(bytes.fromhex('{guests.reading()[:512].hex()}') + bytes(range(256)) * 8190)"
    shell(SERVER, f'python3 -c "{make}" >{RAW} && truncate -s 2M {RAW}')
    made = task(SERVER, "virtuoso.grid.image", {"images": [{"name": "it-paging", "source": {"type": "file", "path": RAW, "format": "raw"}}]})
    assert not made.get("failed"), made
    (image,) = made["images"]
    yield image
    task(SERVER, "virtuoso.grid.image_export", {"state": "absent", "force": True, "exports": [{"digest": image["digest"]}]})
    hexes = image["digest"].replace(":", "-")
    shell(SERVER, f"rm -f {RAW} {DEPOT}/images/manifests/it-paging@* {DEPOT}/images/layers/{hexes}.*")


class Paged:
    """One machine on one provider, and the exports that it needs."""

    def __init__(self, provider, image):
        self.provider, self.image, self.digest = provider, image, image["digest"]
        self.home, self.here = address(SERVER), address(provider.host)

    def export(self, **options):
        source = task(SERVER, "virtuoso.grid.image_export", {"address": self.home, "exports": [{"digest": self.digest}]})
        assert not source.get("failed"), source
        pager = task(
            self.provider.host, "virtuoso.grid.image_export",
            {"path": self.provider.path, "address": self.here, "exports": [{"digest": self.digest, "upstream": source["exports"][0]}], **options},
        )  # fmt: skip
        assert not pager.get("failed"), pager
        self.pager = pager["exports"][0]
        return source, pager

    def stop(self, force=False):
        return [
            task(host, "virtuoso.grid.image_export", {"path": path, "state": "absent", "force": force, "exports": [{"digest": self.digest}]})
            for host, path in ((self.provider.host, self.provider.path), (SERVER, DEPOT))
        ]

    def entry(self, paging=True):
        machine = {**self.provider.machine("it-paged"), "image": {"name": "it-paging", "digest": self.digest}}
        return {**machine, "paging": self.pager} if paging else machine

    def run(self, paging=True, state="running", **options):
        (machine,) = self.provider.run([self.entry(paging)], state, **options)["machines"]
        return machine

    def info(self):
        return self.provider.info(["it-paged"])[0]

    def transfer(self):
        done = task(
            self.provider.host, "virtuoso.grid.image_transfer",
            {"path": self.provider.path, "source": {"host": self.home, "name": SERVER},
             "images": [{"name": self.image["reference"], "digest": self.digest, "size": self.image["size"]}]},
        )  # fmt: skip
        assert not done.get("failed"), done

    def lose(self):
        self.stop(force=True)
        return until("the guest stands still", lambda: self.info() if self.info()["state"] == "paused" else None, deadline=60)

    def settled(self):
        directory = f"{self.provider.path}/machines/{self.entry(False)['uuid']}"
        layer = f"{self.provider.path}/images/layers/{self.digest.replace(':', '-')}.qcow2"
        assert self.provider.shell(f"ls {directory}").split() == ["disk.qcow2", "seed.iso"]
        assert self.info()["pages"] is None
        for flags in ("", "--inactive"):
            xml = self.provider.shell(f"virsh dumpxml {flags} it-paged")
            assert "nbd" not in xml and layer in xml and f"{directory}/disk.qcow2" in xml and "mirror" not in xml
        self.provider.shell(f"qemu-img compare -U -f qcow2 -F qcow2 {directory}/disk.qcow2 {layer} && qemu-img check -q -U {directory}/disk.qcow2")
        return True


def _paging(provider, image):
    provider.shell(f"mkdir -p {provider.path}/machines")
    paged = Paged(provider, image)
    paged.export()
    yield paged
    provider.wipe()
    paged.stop(force=True)
    provider.shell(f"rm -rf {provider.path}/images/layers/{paged.digest.replace(':', '-')}.* {provider.path}/images/manifests")


@pytest.fixture(name="paged")
def _paged(each_provider, image):
    yield from _paging(each_provider, image)


@pytest.fixture(name="paged_once")
def _paged_once(provider, image):
    """On one provider only: what doesn't depend on the versions of libvirt and QEMU, which takes its time."""
    yield from _paging(provider, image)


def test_boots_on_demand_and_settles(paged):
    said, done = paged.run(check=True), paged.run()
    assert said["actions"] == done["actions"] == ["create paging disk", "write seed", "define", "start"]
    assert done["pages"] and done["state"] == "running"
    assert not any(result["changed"] for result in paged.export()) and paged.run()["changed"] is False
    assert not any(result["changed"] for result in paged.stop()), "an export that is in use was stopped"
    paged.transfer()
    assert paged.run(paging=False, check=True)["actions"] == ["settle"]
    assert paged.run(paging=False)["actions"] == ["settle"]
    assert paged.settled() and paged.info()["state"] == "running"
    assert paged.run(paging=False)["changed"] is False
    assert all(result["changed"] for result in paged.stop())
    assert not any(result["changed"] for result in paged.stop())


def test_a_lost_source_is_reported_and_comes_back(paged):
    paged.run()
    lost = paged.lose()
    assert lost["failure"]["code"] == "source_lost" and lost["paused_reason"] == "io_error"
    paged.export()
    assert paged.run()["actions"] == ["resume"]
    assert paged.info()["state"] == "running" and "failure" not in paged.info()
    paged.transfer()
    assert paged.run(paging=False)["actions"] == ["settle"] and paged.settled()


def test_a_source_lost_for_good_is_not_needed_to_settle(paged_once):
    paged_once.run()
    paged_once.transfer()
    paged_once.lose()
    assert paged_once.run(paging=False)["actions"] == ["settle", "resume"]
    assert paged_once.settled() and paged_once.info()["state"] == "running"


def test_another_address_of_the_export(paged_once):
    paged_once.run()
    paged_once.lose()
    paged_once.export(ports="10870-10872")
    assert paged_once.run()["actions"] == ["repoint", "resume"]
    assert paged_once.info()["pages"]["port"] == paged_once.pager["port"] and paged_once.run()["changed"] is False


def test_killed_while_the_disk_moves(paged_once):
    paged_once.run()
    paged_once.transfer()
    directory = f"{paged_once.provider.path}/machines/{paged_once.entry(False)['uuid']}"
    paged_once.provider.shell(
        f"set -e; qemu-img create -q -f qcow2 -u -b {directory}/seed.iso -F raw {directory}/disk.qcow2 2M;"
        f"virsh -q blockcopy it-paged vda {directory}/disk.qcow2 --format qcow2 --shallow --reuse-external --transient-job"
    )
    assert paged_once.run(paging=False)["actions"] == ["settle"] and paged_once.settled()
    # After the change-over and before the last of it
    paged_once.provider.shell(f"touch {directory}/disk.paging.qcow2")
    assert paged_once.run(paging=False)["actions"] == ["settle"] and paged_once.settled()


def test_a_stopped_machine_settles(paged_once):
    paged_once.run()
    paged_once.provider.shell("virsh -q destroy it-paged")
    paged_once.stop(force=True)
    assert paged_once.run(paging=False)["failure"]["code"] == "source_lost"
    paged_once.export()
    assert paged_once.run()["actions"] == ["start"]
    paged_once.provider.shell("virsh -q destroy it-paged")
    paged_once.transfer()
    assert paged_once.run(paging=False)["actions"] == ["settle", "start"] and paged_once.settled()
