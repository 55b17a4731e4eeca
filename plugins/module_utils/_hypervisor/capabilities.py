# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can do: whether KVM works on it, and the facts that placement needs."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import platform
import subprocess
import tempfile
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    libvirt,
    state_word,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import DomainName, HostFacts, HostLayer

RECORD = "/etc/virtuoso/virtualization"
"""Where the role ``provider`` keeps what a trial found: ``kvm`` or ``qemu``."""

_KVM = "/dev/kvm"
# linux/kvm.h: KVM_GET_API_VERSION, and the only version there ever was
_GET_API_VERSION, _API_VERSION = 0xAE00, 12
# A boot sector for QEMU's isa-debug-exit device: mov dx,0x501; mov al,0x10; out dx,al; hlt. QEMU then ends with 0x10 <<
# 1 | 1.
_BOOT_SECTOR = bytes.fromhex("ba0105b010eef4").ljust(510, b"\0") + b"\x55\xaa"
_BOOT_CODE = 0x21
_TRIAL_SECONDS = 10


class Virtualization(t.NamedTuple):
    """``kind`` is kvm, or qemu for QEMU's own slow emulation; ``reason`` says why, for people."""

    kind: str
    reason: str


def cpu_flags(cpuinfo: str) -> set[str]:
    """The processor's flags in the text of ``/proc/cpuinfo`` (pure)."""
    return {
        flag for line in cpuinfo.splitlines() if line.startswith("flags") for flag in line.partition(":")[2].split()
    }


def _cheap() -> Virtualization:
    """What can be seen without starting anything. The processor's flags come first: without them, opening /dev/kvm can
    hang a stock kernel."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        flags = cpu_flags(file.read())
    if not flags & {"vmx", "svm"}:
        return Virtualization("qemu", "the processor shows no virtualization (no vmx or svm flag)")
    try:
        with open(_KVM, "rb+", buffering=0) as device:
            version = fcntl.ioctl(device, _GET_API_VERSION)
    except OSError as exc:
        return Virtualization("qemu", f"{_KVM} can't be used: {exc.strerror}")
    if version != _API_VERSION:
        return Virtualization("qemu", f"{_KVM} speaks version {version}, not {_API_VERSION}")
    return Virtualization("kvm", f"{_KVM} is there and the processor supports it")


def boots(acceleration: str, timeout: float = _TRIAL_SECONDS) -> str | None:
    """Boot a guest of seven bytes; ``None`` if it ran, else what went wrong. :param acceleration: kvm or tcg."""
    with tempfile.NamedTemporaryFile(prefix="virtuoso-trial-") as disk:
        disk.write(_BOOT_SECTOR)
        disk.flush()
        argv = [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            f"pc,accel={acceleration}",
            "-m",
            "16",
            "-drive",
            f"file={disk.name},format=raw,if=ide,readonly=off,snapshot=on",
            "-device",
            "isa-debug-exit,iobase=0x501,iosize=0x2",
        ]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        except FileNotFoundError:
            return "qemu-system-x86_64 is not installed"
        except subprocess.TimeoutExpired:
            return f"a guest did not run within {timeout:g} s"
    if done.returncode != _BOOT_CODE:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"a guest did not run: {said[-1][:200] if said else f'QEMU ended with {done.returncode}'}"
    return None


def probe() -> Virtualization:
    """Look, and if KVM seems usable, run a guest with it."""
    seen = _cheap()
    if seen.kind == "qemu":
        return seen
    problem = boots("kvm")
    if problem:
        return Virtualization("qemu", f"{_KVM} is there, but {problem}")
    return Virtualization("kvm", "a guest ran with KVM")


def virtualization() -> Virtualization:
    """What the role ``provider`` found; where it hasn't been, what can be seen without a trial."""
    try:
        with open(RECORD, encoding="ascii", errors="replace") as file:
            kind = file.read(64).strip()
    except OSError:
        return _cheap()
    if kind in ("kvm", "qemu"):
        return Virtualization(kind, f"found when the provider was set up ({RECORD})")
    return _cheap()


def machine_types(capabilities: str, architecture: str = "x86_64") -> list[str]:
    """The versioned q35 machine types in libvirt's capabilities, oldest first (pure)."""
    arches = ET.fromstring(capabilities).iterfind(f"guest/arch[@name='{architecture}']")
    names = {
        name
        for arch in arches
        for name in (machine.text or "" for machine in arch.iter("machine"))
        if name.startswith("pc-q35-")
    }
    return sorted(
        names, key=lambda name: [int(part) if part.isdigit() else 0 for part in name[len("pc-q35-") :].split(".")]
    )


def _version(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def meminfo(text: str) -> dict[str, int]:
    """The fields of ``/proc/meminfo`` in bytes (pure)."""
    fields = (line.split() for line in text.splitlines())
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if len(field) == 3}


def _domains(conn: Connect) -> tuple[list[DomainName], int, int]:
    """The grid's machines, and the sums of memory (bytes) and processors of all domains; one call for all."""
    which = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU
    machines: list[DomainName] = []
    memory, cpus = 0, 0
    for domain, stats in conn.getAllDomainStats(which, 0):
        # What it has, not what it could be given while it runs: that is free until it is ordered.
        memory += stats.get("balloon.current", stats.get("balloon.maximum", 0)) * 1024
        cpus += stats.get("vcpu.current", stats.get("vcpu.maximum", 0))
        try:
            domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata.NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        except libvirt.libvirtError:
            continue
        machines.append(
            {"uuid": domain.UUIDString(), "name": domain.name(), "state": state_word(stats.get("state.state", 0))}
        )
    return sorted(machines, key=lambda machine: machine["name"]), memory, cpus


def images(path: str) -> list[HostLayer]:
    """The layers in a depot, each with the references of the images that it is the topmost layer of."""
    names: dict[str, set[str]] = {}
    for layer in glob.glob(os.path.join(glob.escape(path), "images", "layers", "sha256-*.qcow2")):
        names[os.path.basename(layer)[: -len(".qcow2")].replace("-", ":", 1)] = set()
    for manifest in glob.glob(os.path.join(glob.escape(path), "images", "manifests", "*.json")):
        try:
            with open(manifest, encoding="utf-8") as file:
                content = json.load(file)
            reference = f"{content['name']}@{content['version']}"
            layers = [str(layer) for layer in content["layers"]]
        except (OSError, ValueError, KeyError, TypeError):
            # A manifest that can't be read names nothing; the module image_info reports it.
            continue
        if layers and all(layer in names for layer in layers):
            names[layers[-1]].add(reference)
    return [{"digest": digest, "names": sorted(names[digest])} for digest in sorted(names)]


def facts(conn: Connect) -> HostFacts:
    """What libvirt and the kernel say of the host."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = meminfo(file.read())
    with translated("ask libvirt what is on the host"):
        machines, memory_allocated, cpus_allocated = _domains(conn)
        networks = [network.name() for network in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)]
        capabilities = conn.getCapabilities()
        return {
            "hostname": platform.node(),
            "architecture": platform.machine(),
            "cpus": os.cpu_count() or 1,
            "cpus_allocated": cpus_allocated,
            "load": round(os.getloadavg()[0], 2),
            "memory": memory["MemTotal"],
            "memory_free": memory["MemAvailable"],
            "memory_allocated": memory_allocated,
            "machine_types": machine_types(capabilities),
            "libvirt_version": _version(conn.getLibVersion()),
            "qemu_version": _version(conn.getVersion()),
            "networks": sorted(networks),
            "machines": machines,
        }
