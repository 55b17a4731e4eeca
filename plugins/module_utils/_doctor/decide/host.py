# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a host, of what was gathered on it (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import Finding, finding, well
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import (
    Certificate,
    Depot,
    Host,
    HostFacts,
    Kvm,
    Libvirt,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

OLDEST_PYTHON = (3, 9)
OLDEST_LIBVIRT = (9, 0, 0)
OLDEST_QEMU = (7, 2, 0)
"""What Debian 12 has."""
TESTED_RELEASES = ("12", "13")
CLOCK_WARNING = 2.0
CLOCK_ERROR = 3600.0
"""Seconds between a host's clock and the controller's."""
EXPIRY_WARNING = 30 * 86400.0
"""Seconds before a certificate's end; the role provider renews it in this time."""
DEPOT_ERROR = 1 << 30
DEPOT_WARNING = 5 << 30
DEPOT_WARNING_PART = 0.1
"""Free bytes, and part, of the depot's file system."""
CONFINED = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lost+found", "/proc", "/sbin", "/selinux", "/sys"),
    *("/usr/bin", "/usr/lib", "/usr/local/bin", "/usr/local/etc", "/usr/local/lib", "/usr/local/sbin", "/usr/sbin"),
)
"""Where libvirt's helper for AppArmor admits no disks."""
_BECOME_WORDS = (
    ("Missing", "become_password_missing"),
    ("a password is required", "become_password_missing"),
    ("a terminal is required", "become_password_missing"),
    ("Incorrect", "become_password_wrong"),
    ("Sorry, try again", "become_password_wrong"),
    ("not found", "become_absent"),
)
_CONNECT_WORDS = (
    ("Host key verification failed", "host_key"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "host_key"),
    ("Permission denied", "login_refused"),
    ("Invalid/incorrect password", "login_refused"),
    ("Authentication failure", "login_refused"),
)


def _code(text: str, words: t.Sequence[t.Tuple[str, str]], otherwise: str) -> str:
    return next((code for part, code in words if part in text), otherwise)


def _short(text: t.Optional[str]) -> str:
    """What a program said, on one line."""
    return " ".join((text or "nothing was said").split())[:200]


def judge_way(host: Host) -> t.List[Finding]:
    """How the host is reached, and how root is become there."""
    name, way = host["name"], host["way"]
    if way["stage"] == "before":
        return [finding("not_asked", name, "it failed or was not reached before, and left the play")]
    if way["stage"] == "connect" or not way["reached"]:
        code = _code(way["error"] or "", _CONNECT_WORDS, "unreachable")
        return [finding(code, name, f"not reached: {_short(way['error'])}")]
    found = [well("way", name, f"reached as {way['user'] or 'an unknown user'}")]
    if way["login_password"]:
        told = f"{way['user']} logs in with a password, which nobody can give for a way that leads on from this host"
        found = [finding("login_by_password", name, told, user=way["user"])]
    if way["stage"] == "become":
        code = _code(way["error"] or "", _BECOME_WORDS, "become_failed")
        told = f"{way['become'] or 'become'} does not work for {way['user']}: {_short(way['error'])}"
        found.append(finding(code, name, told, user=way["user"]))
        return found
    if way["become_user"] != "root":
        found.append(finding("not_root", name, f"commands run as {way['become_user']}, not as root"))
        return found
    if way["become"] and way["user"] != "root":
        how = "with a password" if way["password"] else "without a password"
        found.append(well("become", name, f"{way['user']} becomes root by {way['become']}, {how}"))
    else:
        found.append(well("become", name, "the login is root's"))
    if way["stage"] == "python":
        found.append(finding("python_missing", name, f"no Python there: {_short(way['error'])}"))
    elif way["stage"]:
        found.append(finding("facts_failed", name, f"the facts could not be gathered: {_short(way['error'])}"))
    return found


def judge_host(host: Host, now: float) -> t.List[Finding]:
    """All that concerns one host alone. :param now: the controller's time, in seconds since the epoch."""
    found = judge_way(host)
    facts = host["facts"]
    if facts is None:
        return found
    name, roles = host["name"], host["roles"]
    found += [*judge_python(name, facts, "provider" in roles), *judge_system(name, facts), *judge_clock(host, facts)]
    keeps_images = "provider" in roles or "image_server" in roles
    if keeps_images and not facts["set_up"]:
        found.append(_pending(name, roles))
        found += judge_depot(name, facts["depot"], made=False)
    elif keeps_images:
        found.append(well("setup", name, "virtuoso.grid.setup has been here"))
        found += judge_depot(name, facts["depot"], made=True)
        for certificate in facts["certificates"]:
            found += judge_certificate(name, certificate, now)
        if "provider" in roles:
            found += judge_libvirt(name, facts["libvirt"], host["network"])
    if "provider" in roles:
        found += [*judge_kvm(name, facts["kvm"], facts["set_up"]), *judge_apparmor(name, facts)]
    return found


def _pending(name: str, roles: t.Sequence[str]) -> Finding:
    work = "makes the depot, keys and certificates"
    if "provider" in roles:
        work = (
            "installs libvirt and QEMU, tries KVM, makes the depot, certificates, the network and the firewall's rules"
        )
    return finding("setup_pending", name, "not set up yet", work=work)


def judge_python(name: str, facts: HostFacts, wants_libvirt: bool) -> t.List[Finding]:
    """The interpreter and libvirt's library."""
    python = facts["python"]
    version = ".".join(map(str, python["version"]))
    if tuple(python["version"]) < OLDEST_PYTHON:
        return [finding("python_old", name, f"{python['executable']} is Python {version}")]
    if wants_libvirt and not python["libvirt"] and python["packaged_libvirt"]:
        told = f"{python['executable']} has no libvirt library, the distribution's Python has"
        return [finding("python_other", name, told)]
    if wants_libvirt and not python["libvirt"] and facts["set_up"]:
        return [finding("libvirt_library_missing", name, f"{python['executable']} has no libvirt library")]
    return [well("python", name, f"Python {version}{' with libvirt' if python['libvirt'] else ''}")]


def judge_system(name: str, facts: HostFacts) -> t.List[Finding]:
    """The distribution."""
    system = facts["system"]
    if system["id"] == "debian" and system["version"] in TESTED_RELEASES:
        return [well("system", name, system["name"])]
    if system["id"] == "debian" or "debian" in system["like"]:
        return [finding("distribution_untested", name, f"{system['name']} is not tested")]
    return [finding("distribution_unsupported", name, f"{system['name']} is not supported")]


def clock_offset(host: Host) -> float:
    """Seconds by which the clocks surely differ: 0 where they may be the same, negative where the host is behind."""
    low, high = host["way"]["offset_min"], host["way"]["offset_max"]
    return low if low > 0 else high if high < 0 else 0.0


def judge_clock(host: Host, facts: HostFacts) -> t.List[Finding]:
    """Its clock against the controller's, and whether somebody keeps it right."""
    name, off = host["name"], clock_offset(host)
    told = f"the clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the controller's"
    if abs(off) > CLOCK_ERROR:
        return [finding("clock_far_off", name, told)]
    if abs(off) > CLOCK_WARNING:
        return [finding("clock_off", name, told)]
    if facts["clock"]["synchronised"] is False:
        return [finding("clock_unsynchronised", name, "the clock is right, but nothing synchronises it")]
    return [well("clock", name, "agrees with the controller's")]


def judge_depot(name: str, depot: Depot, made: bool) -> t.List[Finding]:
    """Space for images and disks. :param made: whether setup has made the depot."""
    free, size = depot["free"], depot["size"]
    told = f"{format_size(free)} free of {format_size(size)} at {depot['path']}"
    if made and not depot["present"]:
        return [finding("depot_missing", name, f"{depot['path']} is not there")]
    if free < DEPOT_ERROR:
        return [finding("depot_full", name, told)]
    if free < DEPOT_WARNING or free < DEPOT_WARNING_PART * size:
        return [finding("depot_low", name, told)]
    return [well("depot", name, told)]


def judge_certificate(
    name: str, certificate: Certificate, now: float, missing: str = "certificate_missing", whose: str = "certificate"
) -> t.List[Finding]:
    """A certificate's dates. :param whose: certificate or authority, the beginning of the codes."""
    path = certificate["path"]
    if not certificate["present"]:
        return [finding(missing, name, f"there is no {path}")]
    if certificate["error"]:
        return [finding("certificate_unreadable", name, f"{path}: {_short(certificate['error'])}", path=path)]
    if certificate["not_before"] > now:
        return [finding("certificate_early", name, f"{path} is not valid yet")]
    days = (certificate["not_after"] - now) / 86400
    if days < 0:
        return [finding(f"{whose}_expired", name, f"{path} expired {-days:.0f} days ago")]
    if certificate["not_after"] - now < EXPIRY_WARNING:
        return [finding(f"{whose}_expires", name, f"{path} expires in {days:.0f} days")]
    return [well("certificates", name, f"{path} is valid for {days:.0f} days")]


def judge_kvm(name: str, kvm: Kvm, set_up: bool) -> t.List[Finding]:
    """Hardware acceleration: what there is, and whether the record of setup still fits."""
    usable = kvm["flags"] and kvm["device"] and not kvm["error"]
    slow = "machines run under QEMU's own emulation, some ten times slower"
    if kvm["recorded"] == "kvm":
        if usable:
            return [well("kvm", name, "in use")]
        return [finding("kvm_gone", name, f"was there at the setup and is not usable now: {_why_not(kvm)}")]
    if not kvm["flags"]:
        told = f"the processor shows no vmx or svm; {slow}"
        if kvm["device"] and set_up:
            told += "; /dev/kvm is hidden from libvirt, as it should be"
        return [finding("kvm_missing", name, told)]
    if not usable:
        return [finding("kvm_unusable", name, f"{_why_not(kvm)}; {slow}")]
    if kvm["recorded"] == "qemu":
        return [finding("kvm_unused", name, f"seems usable, but no guest ran with it at the setup; {slow}")]
    return [well("kvm", name, "seems usable; setup tries it with a guest")]


def _why_not(kvm: Kvm) -> str:
    if not kvm["flags"]:
        return "the processor shows no vmx or svm"
    if not kvm["device"]:
        return "/dev/kvm is not there"
    return f"/dev/kvm can't be opened: {_short(kvm['error'])}"


def judge_libvirt(name: str, libvirt: Libvirt, network: str) -> t.List[Finding]:
    """The daemon, versions, and the network that setup made."""
    if libvirt["hangs"]:
        return [finding("libvirt_hangs", name, f"libvirt: {_short(libvirt['error'])}")]
    if not libvirt["answers"]:
        return [finding("libvirt_down", name, f"libvirt does not answer: {_short(libvirt['error'])}")]
    version, qemu = (".".join(map(str, numbers)) for numbers in (libvirt["version"], libvirt["qemu"]))
    if tuple(libvirt["version"]) < OLDEST_LIBVIRT:
        found = [finding("libvirt_old", name, f"libvirt {version} is older than {'.'.join(map(str, OLDEST_LIBVIRT))}")]
    elif not libvirt["qemu"]:
        found = [finding("qemu_missing", name, f"libvirt {version} finds no QEMU: {_short(libvirt['error'])}")]
    elif tuple(libvirt["qemu"]) < OLDEST_QEMU:
        found = [finding("qemu_old", name, f"QEMU {qemu} is older than {'.'.join(map(str, OLDEST_QEMU))}")]
    else:
        found = [well("libvirt", name, f"libvirt {version}, QEMU {qemu}")]
    return [*found, *judge_network(name, libvirt, network)]


def judge_network(name: str, libvirt: Libvirt, network: str) -> t.List[Finding]:
    """The network that machines join by default."""
    there = next((each for each in libvirt["networks"] if each["name"] == network), None)
    if there is None:
        return [finding("network_missing", name, f"there is no network {network}")]
    if not there["active"]:
        return [finding("network_inactive", name, f"network {network} is not active", network=network)]
    if not there["autostart"]:
        told = f"network {network} does not start at boot"
        return [finding("network_not_autostarted", name, told, network=network)]
    return [well("network", name, f"{network} is active")]


def judge_apparmor(name: str, facts: HostFacts) -> t.List[Finding]:
    """Whether machines are confined, and whether what confines them lets them have their disks."""
    apparmor, libvirt, depot = facts["apparmor"], facts["libvirt"], facts["depot"]["path"]
    if not apparmor["enabled"]:
        return [finding("apparmor_absent", name, "the kernel has no AppArmor; machines are confined by users only")]
    if not libvirt["answers"]:
        return []
    if "apparmor" not in libvirt["security"]:
        return [
            finding("apparmor_unused", name, "the kernel has AppArmor, but libvirt does not confine machines by it")
        ]
    if not apparmor["template"]:
        told = "libvirt's template of machines' profiles is missing: no machine can start"
        return [finding("apparmor_template_missing", name, told)]
    if any(f"{depot}/".startswith(f"{each}/") for each in CONFINED):
        return [finding("depot_confined", name, f"machines may read no disks below {depot}")]
    return [well("apparmor", name, "libvirt confines machines by it")]
