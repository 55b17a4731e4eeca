# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seed that a machine reads at its first start: cloud-init's NoCloud data source, as an ISO 9660 image.

https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

import io
import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import User
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import cards
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.ordered_address import network_config
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Wanted

try:
    import pycdlib
except ImportError:
    pycdlib = None  # type: ignore[assignment]  # checked before it is used

VOLUME = "cidata"


def _user(user: User) -> dict[str, object]:
    config: dict[str, object] = {"name": user["name"], "shell": user["shell"], "lock_passwd": True}
    if user["ssh_authorized_keys"]:
        config["ssh_authorized_keys"] = list(user["ssh_authorized_keys"])
    if user["sudo"]:
        config["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
    return config


def _keys(users: t.Iterable[User]) -> list[str]:
    """All keys, each once, in their order."""
    return list(dict.fromkeys(key for user in users for key in user["ssh_authorized_keys"]))


def user_data(spec: Wanted) -> dict[str, object]:
    """The cloud-config of a machine.

    The image's own login user gets the keys of the users who may become root, and no others.
    """
    config: dict[str, object] = {
        "hostname": spec["name"],
        "manage_etc_hosts": "localhost",
        "ssh_pwauth": False,
        "users": ["default", *(_user(user) for user in spec["users"])],
    }
    # cloud-init's schema allows no empty lists.
    keys = _keys(user for user in spec["users"] if user["sudo"])
    if keys:
        config["ssh_authorized_keys"] = keys
    if spec["packages"]:
        config.update(package_update=True, packages=list(spec["packages"]))
    return config


def _yaml(value: object) -> str:
    """``value`` as YAML: JSON, in which every text is quoted, so that none is read as a number, a date or no.

    Characters stand for themselves: JSON escapes some as surrogate pairs, which are no characters in YAML. An order has
    printable characters only.
    """
    return json.dumps(value, indent=1, ensure_ascii=False)


def files(spec: Wanted, mac: str | None = None) -> dict[str, str]:
    """The seed's files, by name. They are JSON, which is YAML, and is written safely without a library.

    ``meta-data`` has a line for each value, and ``authorized_keys`` is there, for images without cloud-init, which read
    only these.

    :param mac: the MAC address of the machine's first card, where it is another than a new machine would have.
    """
    first = mac or spec["mac"]
    macs = [first, *(card.mac for card in cards(spec.get("extra_networks"), first, spec["mtus"]).values())]
    meta_data = {"instance-id": spec["uuid"], "local-hostname": spec["name"]}
    return {
        "meta-data": "".join(f"{key}: {_yaml(value)}\n" for key, value in meta_data.items()),
        "user-data": "#cloud-config\n" + _yaml(user_data(spec)) + "\n",
        "network-config": _yaml(network_config(spec.get("address"), macs)) + "\n",
        "authorized_keys": "".join(f"{key}\n" for key in _keys(spec["users"])),
    }


def image(spec: Wanted, mac: str | None = None) -> bytes:
    """The seed as an ISO 9660 image with Rock Ridge and Joliet names.

    :param mac: as for :func:`files`.
    :raises GridError: ``library_missing``.
    """
    if pycdlib is None:
        raise GridError(
            "library_missing",
            "the Python library pycdlib is not installed",
            tried="import pycdlib",
            remedy="Run the playbook virtuoso.grid.setup on this host, which installs it (python3-pycdlib)",
        )
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME)
    for number, (name, text) in enumerate(files(spec, mac).items()):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    written = io.BytesIO()
    iso.write_fp(written)
    iso.close()
    return written.getvalue()
