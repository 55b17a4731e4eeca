# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is made of: its network, its hosts and the recipes of their images. No code that does anything."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / "build" / "lab"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "virtuoso-grid"

PREFIX = "virtuoso-lab"
NETWORK = PREFIX
SUBNET = "198.18.0.0/24"
GATEWAY = "198.18.0.1"
STATE_DIR = "/var/lib/virtuoso"
IMAGE_STORE = CACHE / "lab-images"

RELEASES = ("bookworm", "trixie")

# A bare Debian host, as an installer leaves it: reachable by SSH, with Python, and nothing else.
BARE = """
    ca-certificates dbus iproute2 iputils-ping openssh-server procps python3 sudo systemd-sysv
""".split()

# The same with all that the roles would install, so that tests need not wait for packages.
HOST = (
    BARE
    + """
    cpio curl debian-archive-keyring dnsmasq-base dosfstools e2fsprogs fdisk genisoimage iptables libvirt-clients
    libvirt-daemon-system mmdebstrap mtools nftables openssh-client python3-cryptography python3-libvirt python3-lxml
    python3-pycdlib qemu-system-x86 qemu-utils rsync syslinux syslinux-common tcpdump xorriso zstd
""".split()
)

PACKAGES = {"bare": BARE, "host": HOST}

# Units that would reach through a privileged container to the machine below it.
MASKED = """
    systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket
    systemd-modules-load.service systemd-remount-fs.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
    console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service
""".split()

# /dev/kvm without a CPU behind it makes libvirt probe QEMU anew at each define: lab hosts go without the node.
NO_KVM = """\
[Unit]
Description=Lab host without /dev/kvm
DefaultDependencies=no
After=systemd-tmpfiles-setup-dev.service
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/rm -f /dev/kvm
[Install]
WantedBy=sysinit.target
"""

# Every lab host has host keys of its own, made at its first start.
HOST_KEYS = """\
[Unit]
Description=SSH host keys of this lab host
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service ssh.socket
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
"""

UNITS = {"lab-no-kvm.service": NO_KVM, "lab-host-keys.service": HOST_KEYS}


@dataclass(frozen=True)
class Host:
    """One host of the lab: a systemd container with a fixed address."""

    name: str
    image: str
    address: str
    volumes: dict[str, str] = field(default_factory=dict)
    port: int = 22
    alias: str = ""
    """its name in the DNS, as far as the lab has one: the other hosts' /etc/hosts, and ssh_config"""
    account: str = ""
    """with which Ansible logs in where that isn't root; it has sudo, with a password"""
    key: str = "id_ed25519"
    """the file of the key that the account admits"""

    @property
    def container(self) -> str:
        return f"{PREFIX}-{self.name}"

    @property
    def mac(self) -> str:
        """Made from the address, so that a remade host is known at once to who has spoken to its predecessor."""
        return "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))


HOME1 = Host(
    "home1",
    "host-bookworm",
    "198.18.0.11",
    {f"{PREFIX}-home1": STATE_DIR, str(IMAGE_STORE): f"{STATE_DIR}/images"},
    key="home1_ed25519",
)
PROVIDER1 = Host("provider1", "host-bookworm", "198.18.0.21", {f"{PREFIX}-provider1": STATE_DIR})
# As people's own hosts are: no login as root, sudo asks for a password, another port, a name instead of an address.
PROVIDER2 = Host(
    "provider2",
    "host-trixie",
    "198.18.0.22",
    {f"{PREFIX}-provider2": STATE_DIR},
    port=2222,
    alias="provider2.virtuoso.test",
    account="ops",
)
HOSTS = (HOME1, PROVIDER1, PROVIDER2)
