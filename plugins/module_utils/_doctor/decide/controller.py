# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the controller, of what was gathered there (pure)."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.host import judge_certificate
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import Finding, finding, well
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import Controller, Host

NAME = "controller"
OLDEST_ANSIBLE = (2, 18)
OLDEST_SQLALCHEMY = 2


def judge_controller(controller: Controller, hosts: t.Sequence[Host]) -> t.List[Finding]:
    """All that concerns the controller. :param hosts: whose certificates are of its authority."""
    return [
        _ansible(controller["ansible"]),
        *_libraries(controller),
        *_store(controller),
        _state(controller),
        *_authority(controller, hosts),
    ]


def _ansible(version: str) -> Finding:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers < OLDEST_ANSIBLE:
        return finding("ansible_old", NAME, f"ansible-core {version} is older than 2.18")
    return well("ansible", NAME, f"ansible-core {version}")


def _libraries(controller: Controller) -> t.List[Finding]:
    found = []
    python = controller["python"]
    for library, version in sorted(controller["libraries"].items()):
        if version is None:
            told = f"{python} has no {library}"
        elif library == "SQLAlchemy" and int((re.findall(r"\d+", version) or ["0"])[0]) < OLDEST_SQLALCHEMY:
            told = f"{python} has {library} {version}, which is older than 2"
            library = "'SQLAlchemy>=2'"
        else:
            continue
        found.append(finding("library_missing", NAME, told, python=python, library=library))
    has = ", ".join(f"{library} {version}" for library, version in sorted(controller["libraries"].items()))
    return found or [well("libraries", NAME, has)]


def _store(controller: Controller) -> t.List[Finding]:
    code = controller["store_code"]
    if code is None:
        return [well("store", NAME, f"{controller['store']} opens and is of the newest version")]
    if code == "library_missing":
        # Said by the libraries already
        return []
    if code == "store_missing":
        return [well("store", NAME, "there is none yet; the first order makes it")]
    if code == "store_older":
        return [finding("store_older", NAME, str(controller["store_error"]))]
    told = f"{controller['store']}: {controller['store_error']} ({code})"
    return [finding("store_unusable", NAME, told, advice=controller["store_remedy"] or "See the message")]


def _state(controller: Controller) -> Finding:
    path, mode = controller["state_dir"], controller["state_mode"]
    if mode is None:
        return well("state", NAME, f"{path} is not made yet")
    if mode & 0o022:
        return finding("state_writable", NAME, f"others may write to {path} (mode {mode:04o})", path=path)
    if mode & 0o055:
        return finding("state_open", NAME, f"others may look into {path} (mode {mode:04o})", path=path)
    if not controller["state_owned"]:
        return finding("state_foreign", NAME, f"{path} belongs to another user")
    return well("state", NAME, f"{path} is private")


def _authority(controller: Controller, hosts: t.Sequence[Host]) -> t.List[Finding]:
    authority = controller["authority"]
    kept = {
        host["name"]: each["digest"]
        for host in hosts
        if host["facts"] and host["facts"]["set_up"]
        for each in host["facts"]["certificates"]
        if each["path"].endswith("/ca-cert.pem") and each["digest"]
    }
    if not kept and not authority["present"]:
        return []
    found = judge_certificate(NAME, authority, controller["now"], "authority_missing", "authority")
    if authority["digest"]:
        told = "its certificate is of another authority than this controller's"
        found += [finding("authority_differs", name, told) for name, own in kept.items() if own != authority["digest"]]
    return found
