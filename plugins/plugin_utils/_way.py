# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hosts are reached, as Ansible's own connection plugin and ssh's configuration have it. There is no second place
that reads their connection variables."""

from __future__ import annotations

import os
import shlex
import subprocess
import typing as t

from ansible import constants as C
from ansible.plugins.loader import connection_loader
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._play.hosts import (
    SSH,
    Way,
    arguments_of,
    resolved,
    way_of,
)

Variables = t.Mapping[str, t.Any]
"""A host's variables: whatever a user has set."""

_PATIENCE = 20.0
_OWN = ("virtuoso_address", "virtuoso_site", "virtuoso_depot", "ansible_host")


def _ssh_options(variables: Variables) -> dict[str, t.Any]:
    """The options of Ansible's connection plugin ``ssh`` for a host: of its variables, the environment and
    ansible.cfg."""
    # Only a plugin that was loaded has options.
    connection_loader.get("ssh", class_only=True)
    names = C.config.get_plugin_vars("connection", "ssh")
    known = {name: variables[name] for name in names if name in variables}
    known.setdefault("inventory_hostname", variables["inventory_hostname"])
    return t.cast("dict[str, t.Any]", C.config.get_plugin_options("connection", "ssh", variables=known))


def _found(options: Variables, host: str) -> tuple[str, int]:
    """The host name and port that ssh has for a host. It doesn't connect for that."""
    argv = [str(options.get("ssh_executable") or "ssh"), *shlex.split(arguments_of(options)), "-G", "--", host]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "", 0
    return resolved(done.stdout)


def way_to(variables: Variables) -> Way:
    """How a host is reached.

    :param variables: the host's.
    :raises GridError: ``invalid_arguments``.
    """
    name = str(variables["inventory_hostname"])
    connection = str(variables.get("ansible_connection") or C.config.get_config_value("DEFAULT_TRANSPORT"))
    options = _ssh_options(variables)
    own = {"inventory_hostname": name, **{key: variables[key] for key in _OWN if key in variables}}
    try:
        found = _found(options, str(options.get("host") or name)) if connection in SSH else ("", 0)
        return way_of(own, connection, options, found, os.getcwd())
    except ValueError as exc:
        raise GridError(
            "invalid_arguments",
            f"the arguments of ssh can't be split: {exc}",
            host=name,
            tried="find out how the host is reached",
            remedy="Close the quotes in ssh_args, ssh_common_args or ssh_extra_args, in ansible.cfg or the inventory",
        ) from exc
