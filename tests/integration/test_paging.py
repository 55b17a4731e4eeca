# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that page from an export until their image is there: they boot, lose their source, settle, and are killed in
between.

The guest reads its disk without end, so that it stands still as soon as what it pages from is gone.
"""

from __future__ import annotations

import functools
import json
import os

import guests
import libvirt
import pytest
from conftest import OF_THE_LAB, shell, task
from walking import LAB, until

SERVER = os.environ.get("VIRTUOSO_TEST_IMAGE_SERVER", "home1")
RAW = "/var/lib/virtuoso-test-paging.raw"
DEPOT = "/var/lib/virtuoso"


@functools.lru_cache
def address(host):
    # what the firewall and the certificates know a host by
    return task(host, "ansible.builtin.debug", {"msg": "{{ virtuoso_address | default(ansible_host) }}"})["msg"]


@pytest.fixture(scope="module", name="image")
def _image():
    # Behind the boot sector 2 MiB that are not zeros
    make = (
        f"import sys; sys.stdout.buffer.write(bytes.fromhex('{guests.reading()[:512].hex()}') + "
        f"bytes(range(256)) * 8190)"
    )
    shell(SERVER, f'python3 -c "{make}" >{RAW} && truncate -s 2M {RAW}')
    made = task(
        SERVER,
        "virtuoso.grid.image",
        {"images": [{"name": "it-paging", "source": {"type": "file", "path": RAW, "format": "raw"}}]},
    )
    assert not made.get("failed"), made
    (image,) = made["images"]
    yield image
    task(
        SERVER,
        "virtuoso.grid.image_export",
        {"state": "absent", "force": True, "exports": [{"digest": image["digest"]}]},
    )
    hexes = image["digest"].replace(":", "-")
    shell(SERVER, f"rm -f {RAW} {DEPOT}/images/manifests/it-paging@* {DEPOT}/images/layers/{hexes}.*")


class Paged:
    """One machine on one provider, and the exports that it needs."""

    def __init__(self, provider, image):
        self.provider, self.image, self.digest = provider, image, image["digest"]
        self.home, self.here = address(SERVER), address(provider.host)

    def export(self, holder=SERVER, ahead=False, **options):
        """Of the image by who holds it, and of that on the provider."""
        source = task(
            holder, "virtuoso.grid.image_export", {"address": address(holder), "exports": [{"digest": self.digest}]}
        )
        assert not source.get("failed"), source
        first = {"ahead": {"name": holder, "host": address(holder)}} if ahead else {}
        pager = task(
            self.provider.host,
            "virtuoso.grid.image_export",
            {
                "path": self.provider.path,
                "address": self.here,
                "exports": [{"digest": self.digest, "upstream": source["exports"][0], **first}],
                **options,
            },
        )
        assert not pager.get("failed"), pager
        self.pager = pager["exports"][0]
        return source, pager

    def stop(self, force=False):
        return [
            task(
                host,
                "virtuoso.grid.image_export",
                {"path": path, "state": "absent", "force": force, "exports": [{"digest": self.digest}]},
            )
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

    def transfer(self, host=None, path=None):
        done = task(
            host or self.provider.host,
            "virtuoso.grid.image_transfer",
            {
                "path": path or self.provider.path,
                "source": {"host": self.home, "name": SERVER},
                "images": [{"name": self.image["reference"], "digest": self.digest, "size": self.image["size"]}],
            },
        )
        assert not done.get("failed"), done

    def lose(self):
        self.stop(force=True)
        return until(
            "the guest stands still", lambda: self.info() if self.info()["state"] == "paused" else None, deadline=60
        )

    def settled(self):
        directory = f"{self.provider.path}/machines/{self.entry(False)['uuid']}"
        layer = f"{self.provider.path}/images/layers/{self.digest.replace(':', '-')}.qcow2"
        assert self.provider.shell(f"ls {directory}").split() == ["disk.qcow2", "seed.iso"]
        assert self.info()["pages"] is None
        for flags in ("", "--inactive"):
            xml = self.provider.shell(f"virsh dumpxml {flags} it-paged")
            assert "nbd" not in xml and layer in xml and f"{directory}/disk.qcow2" in xml and "mirror" not in xml
        self.provider.shell(
            f"qemu-img compare -U -f qcow2 -F qcow2 {directory}/disk.qcow2 {layer} && qemu-img check -q -U "
            f"{directory}/disk.qcow2"
        )
        return True


def forget(provider, path, image):
    provider.shell(
        f"rm -rf {path}/images/layers/{image['digest'].replace(':', '-')}.* {path}/images/manifests/it-paging@*"
    )


def _paging(provider, image):
    provider.shell(f"mkdir -p {provider.path}/machines")
    paged = Paged(provider, image)
    paged.export()
    yield paged
    provider.wipe()
    paged.stop(force=True)
    forget(provider, provider.path, image)


@pytest.fixture(name="paged")
def _paged(newer_provider, image):
    yield from _paging(newer_provider, image)


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


def test_what_a_boot_reads_comes_ahead_and_is_taken_from_there(paged):
    """With the source gone, all of the disk is read from what came ahead; the transfer goes on with it."""
    digest, path, shell_ = paged.digest, paged.provider.path, paged.provider.shell
    paged.stop(force=True)
    paged.export(ahead=True)
    part = f"{path}/images/.paging/{digest[len('sha256:') :]}/{digest.replace(':', '-')}.qcow2"
    until(
        "all has come", lambda: shell_(f"stat -c %b {part} 2>/dev/null || true").strip() not in ("", "0"), deadline=20
    )
    job = f"{path}/images/.staging/get-{digest[len('sha256:') :][:32]}"
    until("the run that brought it has ended", lambda: not shell_(f"ls {job}.lock 2>/dev/null || true"), deadline=20)
    task(SERVER, "virtuoso.grid.image_export", {"state": "absent", "force": True, "exports": [{"digest": digest}]})
    node = f"driver=nbd,server.type=inet,server.host={paged.here},server.port={paged.pager['port']}"
    node += f",export={digest},tls-creds=t"
    tls = "--object tls-creds-x509,id=t,endpoint=client,dir=/etc/pki/qemu"
    read = shell_(
        f"timeout 20 qemu-img convert {tls} --image-opts -O raw {node} /tmp/it-read && sha256sum </tmp/it-read; "
        f"rm -f /tmp/it-read"
    )
    assert read.split()[0] == shell(SERVER, f"sha256sum <{RAW}").split()[0]
    paged.transfer()
    assert shell_(f"ls {job} 2>/dev/null || true") == "" and shell_(f"ls {part} 2>/dev/null || true") == ""
    (stopped, dummy) = paged.stop(force=True)
    assert sum(count for dummy, count in stopped["exports"][0]["read"]) == 32
    assert (
        json.loads(shell_(f"cat {path}/images/layers/{digest.replace(':', '-')}.boot")) == stopped["exports"][0]["read"]
    )


@pytest.mark.each
def test_a_lost_source_is_reported_and_comes_back(paged):
    paged.run()
    lost = paged.lose()
    assert lost["failure"]["code"] == "source_lost" and lost["paused_reason"] == "io_error"
    paged.export()
    assert paged.run()["actions"] == ["resume"]
    assert paged.info()["state"] == "running" and "failure" not in paged.info()
    paged.transfer()
    assert paged.run(paging=False)["actions"] == ["settle"] and paged.settled()


@pytest.mark.each
def test_a_source_lost_for_good_is_not_needed_to_settle(paged_once):
    paged_once.run()
    paged_once.transfer()
    paged_once.lose()
    assert paged_once.run(paging=False)["actions"] == ["settle", "resume"]
    assert paged_once.settled() and paged_once.info()["state"] == "running"


@pytest.mark.each
def test_another_address_of_the_export(paged_once):
    paged_once.run()
    paged_once.lose()
    paged_once.export(ports="10870-10872")
    assert paged_once.run()["actions"] == ["repoint", "resume"]
    assert paged_once.info()["pages"]["port"] == paged_once.pager["port"] and paged_once.run()["changed"] is False


def test_the_source_alone_is_lost_and_another_holder_takes_its_place(paged_once, other_provider):
    holder = other_provider.host
    paged_once.transfer(holder, DEPOT)
    try:
        # The guest is new to the pager, so that its first read is what waits for the source in vain.
        task(
            SERVER,
            "virtuoso.grid.image_export",
            {"state": "absent", "force": True, "exports": [{"digest": paged_once.digest}]},
        )
        paged_once.run()
        lost = until(
            "the guest stands still",
            lambda: paged_once.info() if paged_once.info()["state"] == "paused" else None,
            deadline=60,
        )
        assert lost["failure"]["code"] == "source_lost" and lost["paused_reason"] == "io_error"
        dummy, pager = paged_once.export(holder)
        assert pager["exports"][0]["actions"] == ["replace"]
        assert paged_once.run()["actions"] == ["resume"]
        assert paged_once.info()["state"] == "running" and "failure" not in paged_once.info()
    finally:
        task(
            holder,
            "virtuoso.grid.image_export",
            {"state": "absent", "force": True, "exports": [{"digest": paged_once.digest}]},
        )
        forget(other_provider, DEPOT, paged_once.image)


@pytest.mark.skipif(not OF_THE_LAB, reason="the controller's way to libvirt on both hosts is the lab's")
def test_a_live_migration_meanwhile(paged_once, other_provider, tmp_path):
    """As docs/paging.md has it: with the overlay alone; the target pages from the first provider's pager, and
    settles."""
    paged_once.run()
    here, there = paged_once.provider, other_provider
    directory = f"{here.path}/machines/{paged_once.entry(False)['uuid']}"
    backing = json.loads(here.shell(f"qemu-img info -U --output=json {directory}/disk.paging.qcow2"))[
        "backing-filename"
    ]
    seed = here.shell(f"gzip -c {directory}/seed.iso | base64 -w0")
    there.shell(
        f"mkdir -p {directory} && cd {directory} && qemu-img create -q -f qcow2 -u -b '{backing}' -F raw "
        f"disk.paging.qcow2 2M && "
        f"echo {seed} | base64 -d | gunzip >seed.iso && chmod 0711 .. . && chown libvirt-qemu *"
    )
    wanted = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        | libvirt.VIR_MIGRATE_NON_SHARED_INC
    )
    # OpenSSH's configuration of the lab's administrator; libvirt itself has no option for one.
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec ssh -F "{LAB}/admin_ssh_config" "$@"\n', encoding="utf-8")
    ssh.chmod(0o755)
    uris = [f"qemu+ssh://{each.host}/system?command={ssh}&no_tty=1" for each in (here, there)]
    source, target = map(libvirt.open, uris)
    try:
        source.lookupByName("it-paged").migrate3(
            target, {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{address(there.host)}"}, wanted
        )
    finally:
        source.close()
        target.close()
    pager = paged_once.pager
    assert here.domains() == []
    try:
        paged_once.provider = there
        moved = paged_once.info()
        assert moved["state"] == "running" and moved["pages"]["host"] == pager["host"]
        paged_once.transfer()
        assert paged_once.run(paging=False)["actions"] == ["settle"] and paged_once.settled()
        assert paged_once.info()["state"] == "running"
    finally:
        there.wipe()
        forget(there, there.path, paged_once.image)
        paged_once.provider = here


@pytest.mark.each
def test_killed_while_the_disk_moves(paged_once):
    paged_once.run()
    paged_once.transfer()
    directory = f"{paged_once.provider.path}/machines/{paged_once.entry(False)['uuid']}"
    paged_once.provider.shell(
        f"set -e; qemu-img create -q -f qcow2 -u -b {directory}/seed.iso -F raw {directory}/disk.qcow2 2M;"
        f"virsh -q blockcopy it-paged vda {directory}/disk.qcow2 --format qcow2 --shallow --reuse-external "
        f"--transient-job"
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
