# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab hosts: start, look at, mend and remove them."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from pathlib import Path

import images
from command import LabError, password_file, podman, podman_json, public_key, run, say
from definition import BUILD, CHECKOUT, GATEWAY, HOSTS, IMAGE_STORE, NETWORK, PREFIX, SUBNET, Host

SSH_DEADLINE = 60
LABEL_OWNER = f"{PREFIX}.checkout"
LABEL_RECIPE = f"{PREFIX}.recipe"
LEASES = "/run/containers/networks/ipam.db"
KNOWN_HOSTS = BUILD / "known_hosts"
ANSIBLE_SSH_CONFIG = BUILD / "ssh_config"
ADMIN_SSH_CONFIG = BUILD / "admin_ssh_config"
ADMIN_KEY = "admin_ed25519"


class StaleLease(LabError):
    """An address is still lent to a container that is no more."""


def containers() -> dict[str, dict]:
    """All containers of the lab, running or not, by name."""
    argv = ["ps", "--all", "--filter", f"name=^{PREFIX}-", "--format", "json"]
    done = podman(*argv, check=False)
    while done.returncode != 0 and _restore_namespaces(done.stderr):
        done = podman(*argv, check=False)
    if done.returncode != 0:
        raise LabError(f"podman can't list its containers: {done.stderr.strip()}")
    found = json.loads(done.stdout or "[]") or []
    return {entry["Names"][0]: entry for entry in found}


def _restore_namespaces(errors: str) -> bool:
    """Put back the network namespaces that a reboot took away and podman complains of: without them it neither lists
    nor removes their containers, nor frees their addresses."""
    missing = set(re.findall(r'failed to Statfs \\*"/run/netns/([\w-]+)', errors))
    restored = [run(["ip", "netns", "add", namespace], check=False).returncode == 0 for namespace in missing]
    return any(restored)


def _run_arguments(host: Host) -> list[str]:
    argv = [
        "--name",
        host.container,
        "--hostname",
        host.name,
        "--network",
        f"{NETWORK}:ip={host.address},mac={host.mac}",
        "--privileged",
        "--systemd=always",
        "--stop-timeout=5",
        "--pull=never",
        "--label",
        f"{LABEL_OWNER}={CHECKOUT}",
    ]
    for other in HOSTS:
        if other.name != host.name:
            argv += ["--add-host", f"{other.name}:{other.address}"]
        # As a DNS has it, for the host itself too
        argv += ["--add-host", f"{other.alias}:{other.address}"] if other.alias else []
    for source, target in host.volumes.items():
        argv += ["--volume", f"{source}:{target}"]
    return argv


def _recipe(host: Host) -> str:
    """A digest of all that a running container was made from."""
    text = json.dumps([_run_arguments(host), images.reference(host.image), host.port, host.account, host.key])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _alive(entry: dict) -> bool:
    """Whether the container's first process is there and is its own (after a reboot podman may only believe so)."""
    if entry.get("State") != "running":
        return False
    # A number that another process has got, or a zombie's, names no control group of this container.
    done = run(["grep", "-qs", entry["Id"], f"/proc/{entry.get('Pid')}/mountinfo"], check=False)
    return done.returncode == 0


def runs(host: Host) -> bool:
    return _alive(containers().get(host.container) or {})


def answers(address: str, port: int = 22, timeout: float = 1.0) -> bool:
    """Whether an SSH server greets at the address."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as link:
            link.settimeout(timeout)
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


def condition(host: Host, entry: dict | None) -> str:
    """`up`, `absent`, or the reason for which the host has to be mended or remade."""
    if entry is None:
        return "absent"
    labels = entry.get("Labels") or {}
    if labels.get(LABEL_OWNER) != str(CHECKOUT):
        return "foreign"
    if labels.get(LABEL_RECIPE) != _recipe(host):
        return "outdated"
    if entry.get("State") != "running":
        return "stopped"
    if not _alive(entry):
        return "dead"
    return "up" if answers(host.address, host.port) else "silent"


def wait_for_ssh(hosts: list[Host]) -> None:
    deadline = time.monotonic() + SSH_DEADLINE
    for host in hosts:
        # One that was just made listens where all images do.
        _wait_for_greeting(host, (host.port, 22), deadline)


def _wait_for_greeting(host: Host, ports: tuple[int, ...], deadline: float) -> None:
    while not any(answers(host.address, port) for port in ports):
        if time.monotonic() > deadline:
            log = podman("exec", host.container, "journalctl", "-b", "-n", "20", "--no-pager", check=False)
            raise LabError(
                f"{host.name} ({host.address}) gave no SSH greeting on port {ports[0]} in {SSH_DEADLINE} s; "
                f"its journal ends with:\n{log.stdout or log.stderr}"
            )
        time.sleep(0.1)


def start(host: Host) -> None:
    """Make the container and let systemd start in it; the SSH server comes up by itself."""
    image = images.ensure(host.image)
    for source in host.volumes:
        if source.startswith("/"):
            Path(source).mkdir(parents=True, exist_ok=True)
    label = f"{LABEL_RECIPE}={_recipe(host)}"
    done = podman("run", "--detach", "--label", label, *_run_arguments(host), image, check=False)
    if "IPAM error" in done.stderr:
        podman("rm", "--force", host.container, check=False)
        raise StaleLease(
            f"podman has lent {host.address} to a container that is no more ({done.stderr.strip()}). "
            f"Remove {LEASES} while no container is on the machine, and try again."
        )
    if done.returncode != 0:
        raise LabError(f"{host.name} doesn't start: {done.stderr.strip()}")


def drop_leases() -> bool:
    """Forget all lent addresses; false when containers other than the lab's are there, whose leases they may be."""
    everybody = podman("ps", "--all", "--quiet").stdout.split()
    lab = containers()
    if len(everybody) > len(lab):
        return False
    for name in lab:
        remove(name, [])
    run(["rm", "-f", LEASES])
    return True


def _admission(host: Host) -> str:
    """Shell that lets the lab's administrator in as root and, where it is another one, the host's account with sudo."""
    keys = [public_key(ADMIN_KEY)]
    lines = ["set -eu"]
    if host.account:
        password = Path(password_file()).read_text(encoding="ascii")
        lines += [
            f"id {host.account} >/dev/null 2>&1 || useradd -m -s /bin/bash -G sudo {host.account}",
            f"printf '%s:%s\\n' {host.account} '{password}' | chpasswd",
            f"install -d -m 700 -o {host.account} -g {host.account} ~{host.account}/.ssh",
            f"echo '{public_key(host.key)}' > ~{host.account}/.ssh/authorized_keys",
        ]
    else:
        keys.append(public_key(host.key))
    lines += [f"printf '%s\\n' {' '.join(map(repr, keys))} > /root/.ssh/authorized_keys"]
    if host.port != 22:
        lines += [
            f"echo Port {host.port} > /etc/ssh/sshd_config.d/port.conf",
            "systemctl reload-or-restart ssh.service",
        ]
    lines.append("cat /etc/ssh/ssh_host_ed25519_key.pub")
    return "\n".join(lines)


def admit(host: Host) -> None:
    """Let the lab in on the host, and record the host's own key."""
    # By its input, because there is a password in it.
    done = podman("exec", "-i", host.container, "sh", "-s", stdin=_admission(host))
    kind, key = done.stdout.split()[:2]
    names = {host.name, host.address}
    lines = KNOWN_HOSTS.read_text(encoding="utf-8").splitlines() if KNOWN_HOSTS.exists() else []
    kept = [line for line in lines if not names & set(line.split(" ")[0].split(","))]
    _write_known([*kept, f"{host.address},{host.name} {kind} {key}"])
    _wait_for_greeting(host, (host.port,), time.monotonic() + SSH_DEADLINE)


def write_ssh_configs() -> None:
    """How OpenSSH reaches the hosts: Ansible those with an alias (ansible.cfg names the file), tests and benchmarks all
    of them, as root with the administrator's key."""
    aliases = []
    for host in HOSTS:
        if host.alias:
            aliases += [
                f"Host {host.alias}",
                f"  HostName {host.address}",
                f"  HostKeyAlias {host.name}",
                f"  Port {host.port}",
                f"  User {host.account or 'root'}",
                f'  IdentityFile "{BUILD / host.key}"',
            ]
    _write(ANSIBLE_SSH_CONFIG, aliases)
    ports = {host.address: host.port for host in HOSTS}
    everybody = []
    for name, address in known_addresses().items():
        everybody += [
            f"Host {name} {address}",
            f"  HostName {address}",
            f"  HostKeyAlias {name}",
            f"  Port {ports.get(address, 22)}",
        ]
    everybody += [
        "Host *",
        "  User root",
        f'  IdentityFile "{BUILD / ADMIN_KEY}"',
        "  IdentitiesOnly yes",
        f'  UserKnownHostsFile "{KNOWN_HOSTS}"',
        "  StrictHostKeyChecking yes",
    ]
    _write(ADMIN_SSH_CONFIG, everybody)


def _write(path: Path, lines: list[str]) -> None:
    """Whole or not at all: others read it meanwhile."""
    new = path.with_name(f"{path.name}.new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    new.rename(path)


def _write_known(lines: list[str]) -> None:
    _write(KNOWN_HOSTS, lines)
    write_ssh_configs()


def known_addresses() -> dict[str, str]:
    """The address of each host that was let in, extra ones too."""
    known = KNOWN_HOSTS.read_text(encoding="utf-8") if KNOWN_HOSTS.exists() else ""
    return dict(line.split(" ")[0].split(",")[::-1] for line in known.splitlines())


def forget_key(name: str) -> None:
    if KNOWN_HOSTS.exists():
        lines = KNOWN_HOSTS.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.split(" ")[0].endswith(f",{name}")]
        _write_known(kept)


def admitted(host: Host) -> bool:
    return known_addresses().get(host.name) == host.address and all(
        Path(path).exists() for path in (ANSIBLE_SSH_CONFIG, ADMIN_SSH_CONFIG, BUILD / ADMIN_KEY, BUILD / host.key)
    )


def remove(name: str, volumes: list[str]) -> None:
    """Remove a container, whatever is left of it, and the named volumes given."""
    _restore_namespaces(podman("inspect", name, check=False).stderr)
    for dummy in range(2):
        done = podman("rm", "--force", "--time", "0", name, check=False)
        if podman("container", "exists", name, check=False).returncode != 0:
            break
    else:
        raise LabError(f"podman can't remove the container {name}: {done.stderr.strip()}")
    for volume in volumes:
        podman("volume", "rm", "--force", volume, check=False)


def named_volumes(host: Host) -> list[str]:
    return [source for source in host.volumes if not source.startswith("/")]


def ensure_network() -> bool:
    """Make the lab's network if it isn't there; true when it was made."""
    found = podman_json("network", "inspect", NETWORK)
    if found:
        subnets = [subnet["subnet"] for subnet in found[0].get("subnets") or []]
        if subnets == [SUBNET]:
            return False
        say(f"network {NETWORK} has {subnets} instead of {SUBNET}: remaking it")
        remove_network()
    podman("network", "create", "--disable-dns", "--subnet", SUBNET, "--gateway", GATEWAY, NETWORK)
    return True


def remove_network() -> None:
    podman("network", "rm", "--force", "--time", "0", NETWORK, check=False)


def make_image_store() -> None:
    IMAGE_STORE.mkdir(parents=True, exist_ok=True)


def remove_image_store() -> None:
    run(["rm", "-rf", str(IMAGE_STORE)])
