# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of an order is to be seen inside the guest, field by field of ``docs/ordering.md``.

``test_seed`` looks for it in a machine that was ordered with all of them; a unit test holds the fields against the
documentation, so that a new one is looked for as well, or has a reason why not.
"""

from __future__ import annotations

import typing as t

MACHINE = "123"
"""A name that YAML reads as a number; so is ``no``, the user's, a truth value."""

USER = "no"


class Look(t.NamedTuple):
    """A command in the guest, and what its output has to match, as a regular expression. ``{...}`` are values that the
    test knows only then: ``ip``, ``gateway``, ``key``, ``mac``."""

    command: str
    matches: str


INSIDE: dict[str, Look] = {
    "name": Look("hostname", r"^123$"),
    "vcpus": Look("nproc", r"^2$"),
    "memory": Look("awk '/MemTotal/ {{print int($2 / 1024)}}' /proc/meminfo", r"^(5[5-9]\d|6[0-3]\d|640)$"),
    "disk": Look("lsblk -bdno SIZE /dev/vda", r"^3221225472$"),
    "packages": Look("dpkg-query -W -f '${{Status}}' hello", r"^install ok installed$"),
    "extra_networks": Look("ls -d /sys/class/net/eth*", r"^/sys/class/net/eth0\s+/sys/class/net/eth1$"),
    "users": Look("getent passwd no bob | cut -d : -f 1", r"^no\s+bob$"),
    "users.name": Look("whoami", r"^no$"),
    "users.ssh_authorized_keys": Look("cat .ssh/authorized_keys", r"{key}"),
    "users.sudo": Look("sudo -n id -un; sudo -n -l -U bob", r"^root\s[\s\S]*bob is not allowed to run sudo"),
    "users.shell": Look("getent passwd no bob | cut -d : -f 7", r"^/bin/bash\s+/bin/sh$"),
    "address": Look("ip -4 -o addr show dev eth0 scope global", r"^(?!.*dynamic).*inet {ip}/24\b[^\n]*$"),
    "address.method": Look("networkctl --no-pager status eth0", r"10-cloud-init-eth0\.network"),
    "address.ip": Look(
        "ip -4 -o addr show dev eth0 scope global; cat /sys/class/net/eth0/address", r"inet {ip}/24\b[\s\S]*{mac}"
    ),
    "address.gateway": Look("ip -4 route show default dev eth0", r"^default via {gateway} "),
    "address.nameservers": Look("resolvectl dns eth0", r": {gateway} 192\.0\.2\.53$"),
    "address.search": Look("resolvectl domain eth0", r": example\.org lab\.example\.org$"),
}
"""By field; those of a user and of an address with a dot."""

OUTSIDE: dict[str, str] = {
    "image": "what the guest is made of: it boots",
    "owner": "the store's and the provider's",
    "vcpus_max": "test_life_inside grows it",
    "memory_max": "test_life_inside grows it",
    "network": "a card on another network would reach nothing: the login goes through it",
    "boot": "the firmware's",
    "autostart": "the provider's",
    "description": "the provider's",
    "display": "the console's, which the provider has",
    "performance.reservation": "the provider's scheduler",
    "performance.disk_io": "the provider's limits",
    "performance.cpu_shares": "the provider's scheduler",
    "goal": "placement's",
    "tags": "the inventory's",
    "site": "placement's",
    "architecture": "placement's",
    "features": "placement's",
    "affinity": "placement's",
    "anti_affinity": "placement's",
    "start": "how the image comes; test_paging has it",
    "ready": "when deploy ends; test_ready has it",
}
"""Fields that aren't to be seen inside, each with the reason."""
