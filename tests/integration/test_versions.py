# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of images on the lab's providers: captured from stopped and running machines, booted, flattened, rolled
back, pruned."""

from __future__ import annotations

import concurrent.futures

import guests
import pytest
from conftest import task

MIB = 2**20


class Bench:
    """A provider with an image ``base@1`` whose guest boots, and no other layers."""

    def __init__(self, provider):
        self.provider = provider
        self.path = provider.path
        provider.shell(
            f"rm -rf {self.path}/images/layers/* {self.path}/images/manifests {self.path}/images/.staging; "
            f"chmod 0755 {self.path}/images/layers"
        )
        raw = f"{self.path}/base.raw"
        sector = guests.polite()[:512].hex()
        # Beside the boot sector something in the middle, so that there is content to keep and content to blank
        provider.shell(
            f"python3 -c \"f = open('{raw}', 'wb'); f.write(bytes.fromhex('{sector}')); f.seek({MIB}); "
            f"f.write(b'base' * 40000); f.truncate(4 * {MIB})\""
        )
        source = {"type": "file", "path": raw, "format": "raw"}
        self.base = only(self.image([{"name": "base", "version": "1", "user": "root", "source": source}], "present"))

    def image(self, images, state, check=False, env=None, **options):
        """The result of the module ``image``."""
        args = {"path": self.path, "state": state, "images": images, **options}
        return task(self.provider.host, "virtuoso.grid.image", args, check=check, env=env)

    def info(self):
        """The result of the module ``image_info``."""
        return task(self.provider.host, "virtuoso.grid.image_info", {"path": self.path})

    def machine(self, name, image=None):
        """An entry for the module ``machine`` on an image that a result is about."""
        image = image or self.base
        return self.provider.machine(
            name, image={"name": image["reference"], "digest": image["digest"]}, display="none"
        )

    def disk(self, name):
        return f"{self.path}/machines/{self.provider.machine(name)['uuid']}/disk.qcow2"

    def write(self, name, *commands):
        """Write to the disk of a stopped machine."""
        arguments = " ".join(f"-c '{text}'" for text in commands)
        self.provider.shell(f"qemu-io -f qcow2 {arguments} {self.disk(name)}")

    def check(self, image):
        """qemu-img finds nothing wrong with any layer of the image."""
        for digest in image["layers"]:
            self.provider.shell(
                f"qemu-img check -q -f qcow2 {self.path}/images/layers/{digest.replace(':', '-')}.qcow2"
            )

    def same(self, one, other):
        """qemu-img sees the same content."""
        self.provider.shell(f"qemu-img compare -q -f qcow2 -F qcow2 {one} {other}")

    def boots(self, name):
        """The guest runs and obeys the power button, which it does once its first sector was read."""
        running = only_machine(self.provider.run([{"name": name}]))
        stopped = only_machine(self.provider.run([{"name": name}], "stopped"))
        return (running["state"], stopped["state"]) == ("running", "stopped")


def only(result):
    assert result.get("images"), result
    (image,) = result["images"]
    assert not image.get("failed"), image["msg"]
    return image


def only_machine(result):
    (machine,) = result["machines"]
    assert not machine.get("failed"), machine["msg"]
    return machine


def codes(result):
    return [image["failure"]["code"] if image.get("failed") else None for image in result["images"]]


@pytest.fixture(name="bench")
def _bench(older_provider):
    bench = Bench(older_provider)
    yield bench
    older_provider.wipe()


@pytest.mark.each
def test_capture_stopped_boot_a_second_flatten_roll_back_prune(bench):
    provider = bench.provider
    provider.run([bench.machine("it-a")], "present")
    bench.write("it-a", "write -P 7 2097152 70000", f"write -z {MIB} 65536")
    provider.shell(f"cp {bench.disk('it-a')} {bench.path}/before.qcow2")

    wanted = [{"name": "web", "machine": "it-a", "version": "1"}]
    said, done = only(bench.image(wanted, "captured", check=True)), only(bench.image(wanted, "captured"))
    assert {**said, "size": None} == {**done, "size": None}
    assert (
        done["actions"] == ["capture"]
        and done["consistent"] == "stopped"
        and done["layers"] == [bench.base["digest"], done["digest"]]
    )
    bench.check(done)
    bench.same(done["path"], bench.disk("it-a"))
    for check in (True, False):
        assert bench.image(wanted, "captured", check=check)["changed"] is False
        assert bench.image([{"name": "web", "machine": "it-a"}], "captured", check=check)["changed"] is False

    provider.run([bench.machine("it-b", done)], "present")
    text = provider.shell("virsh dumpxml --inactive it-b")
    top, below = (text.index(digest.replace(":", "-")) for digest in reversed(done["layers"]))
    assert top < below, "the domain does not name the chain, the nearest first"
    bench.same(done["path"], bench.disk("it-b"))
    assert bench.boots("it-b")
    used = bench.info()
    assert set(used["used"]) == set(done["layers"])
    assert {layer["digest"]: layer["parent"] for layer in used["layers"]} == {
        done["layers"][0]: None,
        done["digest"]: done["layers"][0],
    }

    flat = only(bench.image([{"name": "web", "version": "1", "new_version": "flat"}], "flattened"))
    assert flat["layers"] == [flat["digest"]] and flat["actions"] == ["flatten"]
    bench.check(flat)
    bench.same(flat["path"], done["path"])
    assert bench.image([{"name": "web", "version": "1", "new_version": "flat"}], "flattened")["changed"] is False

    back = [{"machine": "it-a", "name": "web", "version": "flat"}]
    assert only(bench.image(back, "rolled_back", check=True))["actions"] == ["roll back"]
    assert only(bench.image(back, "rolled_back"))["actions"] == ["roll back"]
    assert bench.image(back, "rolled_back")["changed"] is False
    bench.same(flat["path"], bench.disk("it-a"))
    assert provider.info(["it-a"])[0]["image"] == {"name": "web@flat", "digest": flat["digest"]}
    assert bench.boots("it-a")
    assert provider.run([bench.machine("it-a", flat)], "present")["changed"] is False

    bench.image([{"name": "web"}], "absent")
    assert bench.image([], "pruned")["changed"] is False, "machines are made of all of them"
    provider.run([{"name": "it-a"}], "absent")
    kept = bench.image([], "pruned", in_use=[flat["digest"]])
    assert kept["changed"] is False
    gone = bench.image([], "pruned")
    assert gone["removed_layers"] == [flat["digest"]] and gone["freed"] > 0
    assert {layer["digest"] for layer in bench.info()["layers"]} == set(done["layers"])
    assert bench.boots("it-b")


def test_capture_a_running_machine(bench):
    """The guest is asleep, so what was copied while it ran is what lies there afterwards."""
    provider = bench.provider
    provider.run([bench.machine("it-a")], "present")
    bench.write("it-a", "write -P 9 3145728 200000", f"write -z {MIB} 131072")
    provider.run([{"name": "it-a"}])
    wanted = [{"name": "live", "machine": "it-a"}]
    said = only(bench.image(wanted, "captured", check=True))
    assert said["actions"] == ["capture"] and said["digest"] is None
    done = only(bench.image(wanted, "captured"))
    assert done["actions"] == ["capture"] and done["consistent"] == "crash"
    bench.check(done)
    assert provider.info(["it-a"])[0]["state"] == "running"
    again = only(bench.image(wanted, "captured"))
    assert (again["changed"], again["digest"]) == (False, done["digest"])
    assert provider.shell(f"ls -A {bench.path}/images/.staging").strip() == ""
    provider.run([{"name": "it-a"}], "stopped")
    bench.same(done["path"], bench.disk("it-a"))
    at_rest = only(bench.image(wanted, "captured"))
    assert (at_rest["changed"], at_rest["digest"]) == (False, done["digest"]), "the same content is the same layer"
    paused = provider.shell("virsh -q start --paused it-a; echo done")
    assert "done" in paused and bench.image(wanted, "captured")["changed"] is False


# The process that runs a module's copied file; the shell that looks must not find itself.
_KILLER = """
for dummy in $(seq 400); do
  pid=$(pgrep -f '^/usr/bin/python3 .*AnsiballZ_[i]mage.py' | head -n 1)
  if [ -n "$pid" ]; then sleep {delay}; kill -9 $pid 2>/dev/null && echo killed || echo late; exit 0; fi
  sleep 0.02
done
"""


def test_killed_anywhere_the_next_run_captures_and_leaves_nothing(bench):
    provider = bench.provider
    provider.run([{**bench.machine("it-a"), "disk": "400 MiB"}], "present")
    bench.write("it-a", "write -P 5 8M 256M")
    provider.run([{"name": "it-a"}])
    wanted = [{"name": "live", "machine": "it-a"}]
    killed = 0
    for delay in (0.3, 0.7, 1.2):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            killer = pool.submit(provider.shell, _KILLER.replace("{delay}", str(delay)))
            bench.image(wanted, "captured", env={"ANSIBLE_PIPELINING": "0"})
            killed += killer.result().strip() == "killed"
        for layer in bench.info()["layers"]:
            provider.shell(f"qemu-img check -q -f qcow2 {layer['path']}")
        done = only(bench.image(wanted, "captured"))
        bench.check(done)
        assert provider.shell(f"ls -A {bench.path}/images/.staging").strip() == ""
        provider.shell("virsh domjobinfo it-a | grep -q None")
        assert provider.info(["it-a"])[0]["state"] == "running"
        bench.image([{"name": "live"}], "absent")
    assert killed >= 1, "the runs were over before they could be killed"


def test_changes_are_kept(bench):
    provider = bench.provider
    provider.run([bench.machine("it-a")], "present")
    bench.write("it-a", "write -P 7 2097152 70000")
    before = provider.shell(f"sha256sum {bench.disk('it-a')}")
    back = [{"machine": "it-a", "name": "base", "version": "1"}]
    assert codes(bench.image(back, "rolled_back")) == ["unsaved_changes"]
    assert provider.shell(f"sha256sum {bench.disk('it-a')}") == before
    provider.run([{"name": "it-a"}])
    assert codes(bench.image(back, "rolled_back", discard=True)) == ["machine_running"]
    provider.run([{"name": "it-a"}], "stopped")
    assert only(bench.image(back, "rolled_back", discard=True))["changed"]
    bench.same(bench.base["path"], bench.disk("it-a"))
    assert codes(bench.image([{"machine": "it-nobody", "name": "base", "version": "1"}], "rolled_back")) == [
        "machine_unknown"
    ]
    assert codes(bench.image([{"machine": "it-a", "name": "base", "version": "9"}], "rolled_back")) == ["image_unknown"]


def test_a_machine_without_a_layer_of_its_chain(bench):
    provider = bench.provider
    provider.run([bench.machine("it-a")], "present")
    bench.write("it-a", "write -P 7 2097152 70000")
    second = only(bench.image([{"name": "web", "machine": "it-a", "version": "1"}], "captured"))
    provider.run([bench.machine("it-b", second)], "present")
    below = f"{bench.path}/images/layers/{second['layers'][0].replace(':', '-')}.qcow2"
    provider.shell(f"mv {below} {bench.path}/away")
    for entry in (bench.machine("it-b", second), {"name": "it-b"}):
        (failed,) = provider.run([entry])["machines"]
        assert failed["failure"]["code"] == "image_missing" and failed["failure"]["layer"] == second["layers"][0]
    provider.shell(f"mv {bench.path}/away {below}")
    assert bench.boots("it-b")
