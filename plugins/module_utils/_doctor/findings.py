# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings: what each code means, how bad it is and what to do about it (pure).

``docs/doctor.md`` has the same table; a test compares the two.
"""

from __future__ import annotations

import typing as t


class Code(t.NamedTuple):
    """What a code stands for. The remedy has the names of values in braces."""

    check: str
    state: str
    remedy: str


class Finding(t.TypedDict):
    """One answer. ``state`` is ok, warning, error or skipped; ``remedy`` is empty where nothing is to be done."""

    check: str
    host: str
    state: str
    code: str
    message: str
    remedy: str


_SETUP = "Run ansible-playbook virtuoso.grid.setup --limit {host}"

CHECKS: t.Dict[str, str] = {
    "way": "whether the controller reaches the host, and as which user",
    "become": "whether that user becomes root there, with or without a password",
    "setup": "whether virtuoso.grid.setup has prepared the host",
    "python": "the Python that modules run with, and libvirt's library in it",
    "system": "the distribution and its release",
    "clock": "the host's clock against the controller's, and NTP",
    "kvm": "hardware acceleration for machines",
    "libvirt": "whether the daemon answers; its version and QEMU's",
    "network": "the network that machines join by default",
    "certificates": "dates of certificates of the private authority, and of the authority itself",
    "depot": "space for images and disks",
    "apparmor": "whether libvirt confines machines by AppArmor, and can",
    "firewall": "whether a firewall of the host's own drops by default",
    "ports": "TCP between the hosts, tried",
    "ansible": "ansible-core's version",
    "libraries": "Python libraries that the controller needs",
    "store": "whether the information service's store opens, and its version",
    "state": "whether the state directory is private",
    "machine": "whether the machine is there and runs",
    "address": "which addresses were seen, by whom, and from where they can be routed to",
    "port": "whether the port answers, tried from its provider, its home and the controller",
    "rules": "what on the provider would stop the traffic",
}

CODES: t.Dict[str, Code] = {
    # The way to a host
    "unreachable": Code(
        "way",
        "error",
        "Check address, port and user in the inventory, then try: ansible {host} -m ansible.builtin.ping -vvv",
    ),
    "login_by_password": Code(
        "way",
        "warning",
        "Give {user} an SSH key there, as ssh-copy-id does, and take ansible_password out of the inventory",
    ),
    "host_key": Code(
        "way",
        "error",
        "Log in once with ssh and compare the key's fingerprint with the host's; if the host was made anew, remove "
        "the old key first: ssh-keygen -R",
    ),
    "login_refused": Code(
        "way",
        "error",
        "Give the key or password of this user (ansible_user, ansible_ssh_private_key_file), or add the key to the "
        "user's authorized_keys",
    ),
    "not_asked": Code("way", "skipped", "Mend what was said of it above, and run virtuoso.grid.doctor"),
    "facts_failed": Code("way", "error", "Run again with -vvv; if it says the same, report it with this message"),
    "become_password_missing": Code("become", "error", "Run with -K, or set ansible_become_password in a vault"),
    "become_password_wrong": Code("become", "error", "Give the right password with -K or ansible_become_password"),
    "become_absent": Code(
        "become", "error", "Install sudo on {host}, or set ansible_become_method to what it has, for example su"
    ),
    "become_failed": Code(
        "become",
        "error",
        "Allow {user} to become root (group sudo or a file in /etc/sudoers.d), or set ansible_become_method",
    ),
    "not_root": Code("become", "error", "Set ansible_become_user to root, or remove it"),
    # The host itself
    "setup_pending": Code("setup", "warning", _SETUP + ", which {work}"),
    "python_missing": Code(
        "python",
        "error",
        "Install it: ansible {host} -b -m ansible.builtin.raw -a 'apt-get install -y python3'; or set "
        "ansible_python_interpreter to the one that is there",
    ),
    "python_old": Code(
        "python",
        "error",
        "Set ansible_python_interpreter to a Python of 3.9 or later; /usr/bin/python3 of Debian 12 is",
    ),
    "libvirt_library_missing": Code("python", "error", _SETUP + ", which installs python3-libvirt"),
    "python_other": Code(
        "python",
        "error",
        "Set ansible_python_interpreter: /usr/bin/python3 for {host}; packages of the distribution are for that one",
    ),
    "distribution_unsupported": Code(
        "system", "error", "Take a Debian 12 or 13 host; the role provider refuses others"
    ),
    "distribution_untested": Code("system", "warning", "Debian 12 and 13 are tested; watch the first deployment"),
    "clock_off": Code(
        "clock",
        "warning",
        "Synchronise it: apt-get install systemd-timesyncd (or chrony) on {host}; check the controller's clock too",
    ),
    "clock_far_off": Code(
        "clock",
        "error",
        "Set it and keep it synchronised (systemd-timesyncd or chrony): with such a clock certificates are refused "
        "and samples are useless",
    ),
    "clock_unsynchronised": Code(
        "clock", "warning", "Synchronise it: apt-get install systemd-timesyncd (or chrony) on {host}"
    ),
    "kvm_missing": Code(
        "kvm",
        "warning",
        "Enable VT-x or AMD-V in the firmware, or nested virtualization where the host is a machine itself; then run "
        "virtuoso.grid.setup again",
    ),
    "kvm_unusable": Code(
        "kvm",
        "warning",
        "Load the module (modprobe kvm_intel or kvm_amd) and see dmesg; then run virtuoso.grid.setup again",
    ),
    "kvm_gone": Code("kvm", "error", "Bring it back, or run virtuoso.grid.setup again so that new machines do without"),
    "kvm_unused": Code("kvm", "warning", _SETUP + ", which tries KVM with a guest and uses it if that runs"),
    "libvirt_down": Code(
        "libvirt", "error", "See why: systemctl status libvirtd on {host}; then systemctl start libvirtd"
    ),
    "libvirt_hangs": Code(
        "libvirt",
        "error",
        "Look for a hanging storage or QEMU (journalctl -u libvirtd), then: systemctl restart libvirtd; machines run "
        "on",
    ),
    "libvirt_old": Code("libvirt", "error", "Upgrade the host to Debian 12 or later"),
    "qemu_missing": Code("libvirt", "error", _SETUP + ", which installs QEMU"),
    "qemu_old": Code("libvirt", "error", "Upgrade the host to Debian 12 or later"),
    "network_missing": Code("network", "error", _SETUP + ", which makes it"),
    "network_inactive": Code(
        "network",
        "error",
        "Start it: virsh net-start {network} on {host}; if that fails, its bridge or addresses are taken by another "
        "network",
    ),
    "network_not_autostarted": Code(
        "network", "warning", "Start it at every boot: virsh net-autostart {network} on {host}"
    ),
    "certificate_missing": Code("certificates", "error", _SETUP + ", which makes it"),
    "certificate_expired": Code("certificates", "error", _SETUP + ", which renews it"),
    "certificate_expires": Code("certificates", "warning", _SETUP + " before, which renews it"),
    "certificate_early": Code(
        "certificates",
        "error",
        "Set the host's clock, or the controller's: one of them was wrong when the certificate was made",
    ),
    "certificate_unreadable": Code(
        "certificates",
        "warning",
        "Look at it: openssl x509 -noout -dates -in {path}; virtuoso.grid.setup makes it anew where it is gone",
    ),
    "authority_differs": Code(
        "certificates",
        "error",
        "Use the state directory of the controller that set the host up (virtuoso_state_dir), or run "
        "virtuoso.grid.setup on all hosts from here",
    ),
    "authority_missing": Code(
        "certificates",
        "warning",
        "Put back pki/ of the state directory from a copy, or run virtuoso.grid.setup on all hosts, which makes a "
        "new one",
    ),
    "authority_expired": Code(
        "certificates",
        "error",
        "Move pki/ of the state directory away and run virtuoso.grid.setup on all hosts, which makes a new authority",
    ),
    "authority_expires": Code(
        "certificates",
        "warning",
        "Plan a new authority: move pki/ of the state directory away and run virtuoso.grid.setup on all hosts at a "
        "time without moves",
    ),
    "depot_missing": Code("depot", "error", _SETUP + ", which makes it; or mount the file system that it is on"),
    "depot_full": Code(
        "depot",
        "error",
        "Free space: virtuoso.grid.images -e prune=true removes images that nothing uses; or set virtuoso_depot to a "
        "larger file system",
    ),
    "depot_low": Code(
        "depot",
        "warning",
        "Free space: virtuoso.grid.images -e prune=true removes images that nothing uses; or set virtuoso_depot to a "
        "larger file system",
    ),
    "apparmor_absent": Code("apparmor", "skipped", ""),
    "apparmor_unused": Code(
        "apparmor",
        "warning",
        "Install the package apparmor and set security_driver in /etc/libvirt/qemu.conf to its default; then restart "
        "libvirtd",
    ),
    "apparmor_template_missing": Code(
        "apparmor", "error", "Install it anew: apt-get install --reinstall libvirt-daemon-system on {host}"
    ),
    "depot_confined": Code(
        "apparmor",
        "error",
        "Set virtuoso_depot to a directory below /var/lib, /srv or /mnt: libvirt's profile lets QEMU read nothing here",
    ),
    "firewall_drops": Code(
        "firewall",
        "warning",
        "Admit TCP {ports} from the grid's hosts there as well: in nftables any table may refuse a packet",
    ),
    "firewall_unread": Code("firewall", "skipped", ""),
    # Between hosts
    "peer_unresolved": Code(
        "ports", "error", "Set virtuoso_address of {peer} to a name that {host} resolves, or to an address"
    ),
    "images_blocked": Code(
        "ports",
        "error",
        "Admit TCP 10808 or SSH from {host} on {peer} and in firewalls between them: images come by one of them",
    ),
    "images_tls_blocked": Code(
        "ports", "warning", "Admit TCP 10808 from {host} on {peer}; images come by SSH until then, which is slower"
    ),
    "migration_blocked": Code(
        "ports",
        "warning",
        "Admit TCP 49152-49215 from {host} on {peer}; machines can't move live between the two until then",
    ),
    "nbd_blocked": Code(
        "ports",
        "warning",
        "Admit TCP 10809-10872 from {host} on {peer}; disks are not moved live or paged between the two until then",
    ),
    "ssh_blocked": Code(
        "ports",
        "warning",
        "Admit SSH one way between {host} and {peer}, or UDP both ways: networks that SSH carries can't join the two "
        "until then",
    ),
    "ports_unprobed": Code(
        "ports", "skipped", "Run with --forks of at least the number of hosts, so that they listen at the same time"
    ),
    "no_peers": Code("ports", "skipped", ""),
    # The controller
    "ansible_old": Code("ansible", "error", "Install ansible-core 2.18 or later"),
    "library_missing": Code("libraries", "error", "Run: {python} -m pip install {library}"),
    "store_older": Code(
        "store",
        "warning",
        "Run a playbook that writes to it, for example virtuoso.grid.refresh, which brings it up to date",
    ),
    "store_unusable": Code("store", "error", "{advice}"),
    "state_writable": Code("state", "error", "Make it private: chmod 700 {path}"),
    "state_open": Code("state", "warning", "Make it private: chmod 700 {path}"),
    "state_foreign": Code("state", "warning", "Run playbooks as the user that owns it, or set virtuoso_state_dir"),
    # A machine
    "machine_unknown": Code(
        "machine", "error", "See the names: ansible-playbook virtuoso.grid.report; order it with virtuoso.grid.deploy"
    ),
    "machine_unplaced": Code("machine", "error", "Start it: ansible-playbook virtuoso.grid.deploy"),
    "machine_unseen": Code(
        "machine",
        "error",
        "Bring the provider back, then ask again; virtuoso.grid.doctor without machine= says what is wrong with it",
    ),
    "machine_absent": Code(
        "machine",
        "error",
        "Bring the store up to date: ansible-playbook virtuoso.grid.refresh; then virtuoso.grid.deploy",
    ),
    "machine_not_running": Code(
        "machine", "error", "Start it: ansible-playbook virtuoso.grid.power -e machines={machine} -e state=running"
    ),
    "address_none": Code(
        "address",
        "error",
        "See its console (virtuoso.grid.report): it may still boot, have no DHCP client, or {advice}",
    ),
    "address_unseen": Code(
        "address",
        "warning",
        "See its console (virtuoso.grid.report) and what its guest made of the order: nobody has seen the address",
    ),
    "address_link_local": Code("address", "error", "Nobody answered its DHCP: {advice}"),
    "address_private": Code("address", "ok", ""),
    "address_shared": Code("address", "ok", ""),
    "address_public": Code("address", "ok", ""),
    "address_special": Code(
        "address", "warning", "Give the machine an address of its network; nothing can connect to this one"
    ),
    "port_open": Code("port", "ok", ""),
    "port_closed": Code(
        "port",
        "error",
        "Start the service in the guest, and let it listen on all addresses and not only on 127.0.0.1; a firewall in "
        "the guest may refuse as well",
    ),
    "port_silent": Code(
        "port", "error", "Look in the guest: its firewall drops the port, it hangs, or the address is no longer its own"
    ),
    "port_unreachable": Code("port", "error", "Look for a wrong route or address on this host: ip route get {address}"),
    "port_blocked": Code("port", "warning", "{advice}"),
    "port_untried": Code("port", "skipped", ""),
    "rules_stop": Code(
        "rules",
        "warning",
        "Admit TCP {port} to {address} before this rule, or remove it, if the machine is to be reached through the "
        "provider",
    ),
    "rules_nat": Code(
        "rules",
        "warning",
        "Reach it through the provider: ssh -J {provider} or ssh -L; or order it on a network of its home (network: "
        "in the order), where the LAN sees it",
    ),
    "rules_isolated": Code(
        "rules", "warning", "Order it on a network of its home, or on a libvirt network with forwarding"
    ),
    "rules_route": Code(
        "rules",
        "warning",
        "Add a route to the network by way of {provider} to the routers of those who are to reach it",
    ),
}
"""In all but ok findings, which have the code ok where nothing above fits."""


def finding(code: str, host: str, message: str, **values: object) -> Finding:
    """A finding of a code of :data:`CODES`. :param values: what its remedy names, beside the host."""
    known = CODES[code]
    return {
        "check": known.check,
        "host": host,
        "state": known.state,
        "code": code,
        "message": message,
        "remedy": known.remedy.format(**{"host": host, **values}),
    }


def well(check: str, host: str, message: str) -> Finding:
    """A check that found nothing wrong."""
    return {"check": check, "host": host, "state": "ok", "code": "ok", "message": message, "remedy": ""}
