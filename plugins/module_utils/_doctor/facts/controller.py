# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller has: libraries, the store, the state directory, the private authority."""

from __future__ import annotations

import importlib
import os
import stat
import sys
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts.host import read_certificate
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import Controller
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

LIBRARIES = {"sqlalchemy": "SQLAlchemy", "cryptography": "cryptography"}
"""Modules, and the packages that have them."""


def _version(name: str) -> t.Optional[str]:
    try:
        return str(getattr(importlib.import_module(name), "__version__", ""))
    except ImportError:
        return None


def _store_error(store: str) -> t.Optional[GridError]:
    try:
        with Store(store, timeout=5).reading():
            return None
    except GridError as exc:
        return exc


def gather(ansible: str, store: str, state_dir: str) -> Controller:
    """All facts of the controller. :param ansible: the version of ansible-core."""
    directory = os.path.expanduser(state_dir)
    try:
        status: t.Optional[os.stat_result] = os.stat(directory)
    except OSError:
        status = None
    error = _store_error(store)
    return {
        "ansible": ansible,
        "python": sys.executable,
        "libraries": {package: _version(name) for name, package in LIBRARIES.items()},
        "store": store,
        "store_error": error.msg if error else None,
        "store_code": error.code if error else None,
        "store_remedy": error.remedy if error else None,
        "state_dir": directory,
        "state_mode": stat.S_IMODE(status.st_mode) if status else None,
        "state_owned": status is None or status.st_uid == os.geteuid(),
        "authority": read_certificate(os.path.join(directory, "pki", "ca-cert.pem")),
        "now": time.time(),
    }
