# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of links over SSH: the client's settings and known hosts, and the keys that the server admits (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import ACCOUNT
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Part


def ssh_files(part: Part, directory: str) -> t.Dict[str, str]:
    """The content of the files of SSH links, by path.

    :param directory: of the overlay's files.
    """
    files: t.Dict[str, str] = {}
    admitted = []
    for link in part["links"]:
        if link["transport"] != "ssh":
            continue
        base = f"{directory}/ssh/{link['device']}"
        if link["end"] == "server":
            if link.get("client_key"):
                number = link["device"][3:]
                admitted.append(
                    f'restrict,command="/bin/false",tunnel="{number}" {link["client_key"]} {link["device"]}'
                )
            continue
        number = link["device"][3:]
        files[base + ".known_hosts"] = f"{link['device']} {link['host_key']}\n"
        settings = {
            "HostName": link["remote"],
            "Port": link["port"],
            "User": ACCOUNT,
            "HostKeyAlias": link["device"],
            "IdentityFile": base + ".key",
            "UserKnownHostsFile": base + ".known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "Tunnel": "ethernet",
            "TunnelDevice": f"{number}:{number}",
            "ExitOnForwardFailure": "yes",
            "ConnectTimeout": 3,
            "ServerAliveInterval": 2,
            "ServerAliveCountMax": 2,
            "Compression": "no",
            "Ciphers": "aes128-gcm@openssh.com",
            "HostKeyAlgorithms": "ssh-ed25519",
        }
        files[base + ".conf"] = "Host link\n" + "".join(f"  {key} {value}\n" for key, value in settings.items())
    if admitted:
        files[f"{directory}/authorized_keys"] = "\n".join(sorted(admitted)) + "\n"
    return files


def clients(part: Part) -> t.List[str]:
    """The devices of the links whose SSH client is this host."""
    return sorted(link["device"] for link in part["links"] if link["transport"] == "ssh" and link["end"] == "client")
