# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is: read from its files and from libvirt, within a bounded time each. Changes nothing."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import hashlib
import os
import sys
import threading
import time
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts import ports
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts.firewall import firewall
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import (
    LISTEN,
    AppArmor,
    Certificate,
    Depot,
    HostFacts,
    Kvm,
    Libvirt,
    Network,
    Peer,
    Python,
    System,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.capabilities import RECORD, cpu_flags
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt as library
from ansible_collections.virtuoso.grid.plugins.module_utils._pki import TLS_DIR

LIBVIRT_PATIENCE = 10.0
"""Seconds that libvirt may take to answer."""
_KVM = "/dev/kvm"
_TEMPLATE = "/etc/apparmor.d/libvirt/TEMPLATE.qemu"
_SET_UP = "/etc/virtuoso/transfer_ed25519"
_PACKAGED = "/usr/lib/python3/dist-packages/libvirt.py"
CERTIFICATES = (f"{TLS_DIR}/server-cert.pem", f"{TLS_DIR}/ca-cert.pem")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def parse_os_release(text: str) -> System:
    """/etc/os-release (pure)."""
    fields = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields[key.strip()] = value.strip().strip("\"'")
    return {
        "id": fields.get("ID", ""),
        "like": fields.get("ID_LIKE", "").split(),
        "version": fields.get("VERSION_ID", ""),
        "name": fields.get("PRETTY_NAME") or fields.get("ID") or "an unknown system",
    }


def _python() -> Python:
    return {
        "executable": sys.executable,
        "version": list(sys.version_info[:3]),
        "libvirt": library is not None,
        "packaged_libvirt": os.path.exists(_PACKAGED),
    }


def _synchronised() -> t.Optional[bool]:
    try:
        answer = command(["timedatectl", "show", "--property=NTPSynchronized", "--value"], timeout=5).strip()
    except GridError:
        return None
    return {"yes": True, "no": False}.get(answer)


def _kvm() -> Kvm:
    error = None
    try:
        os.close(os.open(_KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        error = exc.strerror
    recorded = _text(RECORD).strip()
    return {
        "flags": bool(cpu_flags(_text("/proc/cpuinfo")) & {"vmx", "svm"}),
        "device": os.path.exists(_KVM),
        "error": error,
        "recorded": recorded if recorded in ("kvm", "qemu") else None,
    }


def _numbers(version: int) -> t.List[int]:
    return [version // 1000000, version // 1000 % 1000, version % 1000]


def security_drivers(capabilities: str) -> t.List[str]:
    """The active security drivers in libvirt's capabilities (pure)."""
    return [model.text or "" for model in ET.fromstring(capabilities).iterfind("host/secmodel/model")]


def _ask(uri: str, answer: Libvirt) -> None:
    """Fill in what libvirt says."""
    if library is None:
        return
    library.registerErrorHandler(lambda *dummy: None, None)
    try:
        conn = library.open(uri)
    except library.libvirtError as exc:
        answer["error"] = str(exc).strip()
        return
    try:
        answer["version"] = _numbers(conn.getLibVersion())
        answer["security"] = security_drivers(conn.getCapabilities())
        answer["networks"] = [
            Network(name=each.name(), active=bool(each.isActive()), autostart=bool(each.autostart()))
            for each in conn.listAllNetworks(0)
        ]
        answer["answers"] = True
        # Fails where QEMU is not installed.
        answer["qemu"] = _numbers(conn.getVersion())
    except library.libvirtError as exc:
        answer["error"] = str(exc).strip()
    finally:
        with contextlib.suppress(library.libvirtError):
            conn.close()


def no_answer(error: t.Optional[str], hangs: bool = False) -> Libvirt:
    """Of a libvirt that said nothing."""
    return {
        "answers": False,
        "hangs": hangs,
        "error": error,
        "version": [],
        "qemu": [],
        "security": [],
        "networks": [],
    }


def ask_libvirt(uri: str, patience: float = LIBVIRT_PATIENCE) -> Libvirt:
    """What libvirt answers. One that hangs is left behind in its thread."""
    if library is None:
        return no_answer("the Python library of libvirt is not installed")
    answer = no_answer(None)
    thread = threading.Thread(target=_ask, args=(uri, answer), daemon=True)
    thread.start()
    thread.join(patience)
    # What a late answer may still write is not looked at.
    return no_answer(f"no answer within {patience:g} s", hangs=True) if thread.is_alive() else answer


def read_certificate(path: str) -> Certificate:
    """The first certificate of a file."""
    found: Certificate = {
        "path": path,
        "present": os.path.exists(path),
        "error": None,
        "not_before": 0.0,
        "not_after": 0.0,
        "digest": "",
    }
    if not found["present"]:
        return found
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding
    except ImportError:
        found["error"] = "the Python library cryptography is not installed"
        return found
    try:
        with open(path, "rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read(1 << 20))
    except (OSError, ValueError) as exc:
        found["error"] = str(exc)
        return found
    found["digest"] = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    found["not_before"] = _moment(certificate, "not_valid_before")
    found["not_after"] = _moment(certificate, "not_valid_after")
    return found


def _moment(certificate: object, name: str) -> float:
    """One of a certificate's dates. cryptography 42 has dates with a zone, and warns of those without."""
    aware = getattr(certificate, f"{name}_utc", None)
    moment: datetime.datetime = aware or getattr(certificate, name).replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp()


def _depot(path: str) -> Depot:
    there = os.path.abspath(path)
    while not os.path.isdir(there) and there != "/":
        there = os.path.dirname(there)
    usage = os.statvfs(there)
    return {
        "path": path,
        "present": os.path.isdir(os.path.join(path, "images", "layers")),
        "size": usage.f_blocks * usage.f_frsize,
        "free": usage.f_bavail * usage.f_frsize,
    }


def _apparmor() -> AppArmor:
    return {
        "enabled": _text("/sys/module/apparmor/parameters/enabled").strip() == "Y",
        "template": os.path.exists(_TEMPLATE),
    }


def gather(uri: t.Optional[str], depot: str, peers: t.Sequence[Peer], seconds: float) -> HostFacts:
    """All facts of this host. The ports are probed while the rest is looked at.

    :param uri: libvirt's, none where the host needs no libvirt.
    """
    begin = time.time()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        probed = pool.submit(ports.probe, peers, LISTEN, seconds)
        return {
            "set_up": os.path.exists(_SET_UP),
            "system": parse_os_release(_text("/etc/os-release") or _text("/usr/lib/os-release")),
            "python": _python(),
            "kvm": _kvm(),
            "libvirt": ask_libvirt(uri) if uri else no_answer(None),
            "certificates": [read_certificate(path) for path in CERTIFICATES],
            "depot": _depot(depot),
            "apparmor": _apparmor(),
            "firewall": firewall(),
            "ports": probed.result(),
            # Last: between these two moments lies all that was done here.
            "clock": {"begin": begin, "synchronised": _synchronised(), "end": time.time()},
        }
