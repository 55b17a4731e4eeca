# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running one module on a host of the lab, as a task would, and a provider prepared for tests of machines."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing as t
import uuid
from pathlib import Path

import guests
import pytest
from walking import on_host

CHECKOUT = Path(__file__).resolve().parents[2]
INVENTORY = os.environ.get("VIRTUOSO_TEST_INVENTORY", str(CHECKOUT / "inventory" / "lab"))
DEADLINE = 180

Row = t.Dict[str, t.Any]


OF_THE_LAB = "VIRTUOSO_TEST_INVENTORY" not in os.environ


def shell(host: str, script: str, *, check: bool = True) -> str:
    """What a shell script says on a host: of the lab by its SSH, a quarter of a task's time."""
    if OF_THE_LAB:
        return on_host(host, script, check=check).rstrip("\n")
    done = task(host, "ansible.builtin.shell", {"_raw_params": script})
    assert not check or not done.get("failed"), f"{host}: {script}: {done.get('stderr') or done.get('msg')}"
    return str(done.get("stdout", ""))


def task(
    host: str,
    module: str,
    args: t.Mapping[str, t.Any] | None = None,
    *,
    check: bool = False,
    env: t.Mapping[str, str] | None = None,
) -> Row:
    """The result of one module on one host; ``failed`` is in it, nothing is raised. In check mode it has ``diff`` as
    well."""
    argv = [str(Path(sys.executable).parent / "ansible"), "--inventory", INVENTORY, host, "--module-name", module]
    argv += ["--become"] if host != "localhost" else []
    argv += ["--args", json.dumps(args)] if args else []
    settings = {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", **(env or {})}
    done = subprocess.run(
        argv + ["--check", "--diff"] * check,
        cwd=CHECKOUT,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    start = done.stdout.find("{\n")
    assert start >= 0, f"ansible said nothing of {module} on {host}: {done.stdout}{done.stderr}"
    answer, dummy = json.JSONDecoder().raw_decode(done.stdout[start:])
    return answer["plays"][0]["tasks"][0]["hosts"][host]


def background(host: str, module: str, args: str) -> subprocess.Popen[str]:
    """One module on one host, not waited for: ``communicate`` does. It ends with 0 where the module did."""
    argv = [
        str(Path(sys.executable).parent / "ansible"),
        "--inventory",
        INVENTORY,
        "--become",
        host,
        "--module-name",
        module,
        "--args",
        args,
    ]
    return subprocess.Popen(
        argv, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="session", autouse=True)
def _set_up() -> None:
    """The lab's hosts are an image server and providers; a lab that was just made has bare ones."""
    playbook = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", INVENTORY, "virtuoso.grid.setup"]
    done = subprocess.run(
        playbook, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"the lab can't be set up:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"


@pytest.fixture(scope="session", name="ansible")
def _ansible() -> t.Callable[..., Row]:
    """``ansible(host, module, args, check=False)``: the result of one module on one host."""
    return task


@dataclasses.dataclass
class Provider:
    """A provider with a depot, a network and two one-sector images of its own; everything is removed afterwards."""

    host: str
    path: str = "/var/lib/virtuoso-test-machines"
    network: str = "virtuoso-test"

    DIGESTS: t.ClassVar[t.Dict[str, str]] = {
        name: "sha256:" + "0" * 63 + str(number)
        for number, name in enumerate(("polite", "deaf", "counting", "reading"), 1)
    }

    def shell(self, script: str, *, check: bool = True) -> str:
        """What a shell script says on the provider."""
        return shell(self.host, script, check=check)

    def prepare(self) -> None:
        """Make the depot with its images, and the network."""
        self.clean()
        layers = f"{self.path}/images/layers"
        xml = (
            f"<network><name>{self.network}</name><forward mode='nat'/><bridge name='virtest0'/><ip "
            f"address='198.18.201.1' netmask='255.255.255.0'>"
            "<dhcp><range start='198.18.201.10' end='198.18.201.250'/></dhcp></ip></network>"
        )
        lines = [
            f"mkdir -p {layers}",
            "getent group virtuoso >/dev/null || groupadd --system virtuoso",
            "usermod -aG virtuoso libvirt-qemu",
        ]
        for name, digest in self.DIGESTS.items():
            file = f"{layers}/{digest.replace(':', '-')}.qcow2"
            sector = getattr(guests, name)()[:512].hex()
            lines.append(
                f"python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(\"{sector}\"))' >{layers}/raw "
                f"&& truncate -s 2M {layers}/raw"
            )
            lines.append(
                f"qemu-img convert -f raw -O qcow2 {layers}/raw {file} && rm {layers}/raw && chgrp virtuoso "
                f"{file} && chmod 0640 {file}"
            )
        lines.append(
            f"printf '%s' \"{xml}\" >{self.path}/net.xml && virsh -q net-define {self.path}/net.xml && virsh -q "
            f"net-start {self.network}"
        )
        self.shell("set -e\n" + "\n".join(lines))

    def clean(self) -> None:
        """Remove every domain that uses the depot, the depot and the network."""
        self.wipe()
        self.shell(
            f"virsh -q net-destroy {self.network}; virsh -q net-undefine {self.network}; rm -rf {self.path}; true"
        )

    def wipe(self) -> None:
        """Remove every domain that uses the depot, and all machines' files."""
        self.shell(
            "for name in $(virsh list --all --name); do if virsh dumpxml $name | grep -q -e '"
            + self.path
            + "' -e virtuoso-test-foreign; then virsh -q destroy $name; virsh -q undefine --managed-save "
            "--snapshots-metadata $name; fi; done 2>/dev/null;" + f"rm -rf {self.path}/machines; true"
        )

    def domains(self, field: str = "name") -> list[str]:
        """Names or uuids of this test's domains; the lab may have others."""
        found = (line.split() for line in self.shell("virsh list --all --uuid --name").splitlines())
        return sorted(
            pair[0 if field == "uuid" else 1] for pair in found if len(pair) == 2 and pair[1].startswith("it-")
        )

    def machine(self, name: str, image: str = "polite", /, **changes: t.Any) -> Row:
        """An entry for the module ``machine``; the same name is always the same machine."""
        return {
            "uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
            "name": name,
            "owner": "alice",
            "image": {"name": f"{image}@1", "digest": self.DIGESTS[image]},
            "memory": "32 MiB",
            "network": self.network,
            "site": "site-a",
            "generation": 1,
            **changes,
        }

    def run(
        self,
        machines: t.Sequence[t.Any],
        state: str = "running",
        *,
        check: bool = False,
        env: t.Mapping[str, str] | None = None,
        **options: t.Any,
    ) -> Row:
        """The result of the module ``machine``."""
        args = {"path": self.path, "state": state, "machines": list(machines), "timeout": 60, **options}
        return task(self.host, "virtuoso.grid.machine", args, check=check, env=env)

    def snapshot(
        self, machines: t.Sequence[str], state: str = "present", *, check: bool = False, **options: t.Any
    ) -> Row:
        """The result of the module ``machine_snapshot``."""
        args = {"path": self.path, "state": state, "machines": [{"name": name} for name in machines], **options}
        return task(self.host, "virtuoso.grid.machine_snapshot", args, check=check)

    def info(self, machines: t.Sequence[str], wait: int = 0, **options: t.Any) -> list[Row]:
        """The rows of the module ``machine_info``."""
        args = {"path": self.path, "machines": list(machines), "wait_for_address": wait, **options}
        return task(self.host, "virtuoso.grid.machine_info", args)["machines"]


def provider_of(host: str) -> t.Iterator[Provider]:
    provider = Provider(host)
    provider.prepare()
    yield provider
    provider.clean()


PROVIDERS = os.environ.get("VIRTUOSO_TEST_PROVIDERS", "provider1,provider2").split(",")


@pytest.fixture(scope="module", name="provider")
def _first_provider() -> t.Iterator[Provider]:
    """The first provider of the lab, prepared for tests of machines."""
    yield from provider_of(PROVIDERS[0])


@pytest.fixture(scope="module", name="other_provider")
def _other_provider() -> t.Iterator[Provider]:
    """Another one, of a later release of Debian."""
    yield from provider_of(PROVIDERS[-1])


@pytest.fixture(scope="module", name="each_provider", params=PROVIDERS)
def _each_provider(request: pytest.FixtureRequest) -> t.Iterator[Provider]:
    """Each provider of the lab in turn: they differ in their versions of libvirt and QEMU."""
    yield from provider_of(request.param)


@pytest.fixture(name="cleaned")
def _cleaned(request: pytest.FixtureRequest) -> t.Iterator[None]:
    """No machine is left on the providers that a test used."""
    yield
    for name in ("provider", "each_provider", "older_provider", "newer_provider"):
        if name in request.fixturenames:
            request.getfixturevalue(name).wipe()


EACH = bool(os.environ.get("VIRTUOSO_TEST_EACH"))
"""Whether long tests run on both providers (``make test-each``), and those marked ``each`` run at all; else on one,
some on the older release, some on the newer."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only ``make test-each`` runs: left out, not skipped, for what is skipped counts as failed."""
    left_out = [item for item in items if not EACH and item.get_closest_marker("each")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module", name="older_provider", params=PROVIDERS if EACH else PROVIDERS[:1])
def _older_provider(request: pytest.FixtureRequest) -> t.Iterator[Provider]:
    """The provider of the earlier release of Debian; with :data:`EACH` each in turn."""
    yield from provider_of(request.param)


@pytest.fixture(scope="module", name="newer_provider", params=PROVIDERS if EACH else PROVIDERS[-1:])
def _newer_provider(request: pytest.FixtureRequest) -> t.Iterator[Provider]:
    """The provider of the later release of Debian; with :data:`EACH` each in turn."""
    yield from provider_of(request.param)
