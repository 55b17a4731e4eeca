# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``host_check``: the way to the host, step by step, and the host's clock beside ours."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.peers import Node, peers_of, roles_of
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import Host, Way
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils._way import way_to

Vars = t.Mapping[str, t.Any]


def way() -> Way:
    """A way of which nothing is known yet."""
    return {
        "reached": False,
        "error": None,
        "stage": "connect",
        "user": "",
        "become": "",
        "become_user": "",
        "password": False,
        "login_password": False,
        "offset_min": 0.0,
        "offset_max": 0.0,
    }


def nodes(names: t.Sequence[str], hostvars: Vars, groups: t.Mapping[str, t.Sequence[str]], server: str) -> list[Node]:
    """The hosts of a play. :param server: the host that keeps the images."""
    found = []
    for name in names:
        try:
            way = way_to(hostvars[name])
            found.append(Node(name, way["address"], way["ssh_port"], roles_of(name, groups, server)))
        except (AnsibleError, GridError, KeyError):
            # How that one is reached can't be told, which is no matter of this host's.
            found.append(Node(name, name, 22, roles_of(name, groups, server)))
    return found


def clocks(began: float, ended: float, clock: Vars) -> tuple[float, float]:
    """Between which seconds the host's clock is ahead of the controller's (pure).

    :param began: the controller's time before the host was asked, ``ended`` after it had answered.
    """
    return float(clock["end"]) - ended, float(clock["begin"]) - began


def stage_of(answer: Vars) -> str:
    """What failed where the module gave no facts: ``python`` where there is no interpreter, else ``facts`` (pure)."""
    text = f"{answer.get('msg')} {answer.get('module_stderr')}"
    absent = answer.get("rc") == 127 or ("interpreter" in text and "not found" in text)
    return "python" if absent else "facts"


class ActionModule(ActionBase):
    """Asks the host three things, each only if the one before worked. Whatever fails is part of the result."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """The host: how it is reached, and its facts."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        name = str(variables.get("inventory_hostname"))
        play = [str(each) for each in variables.get("ansible_play_hosts_all") or [name]]
        groups, server = variables.get("groups") or {}, str(self._task.args.get("image_server") or "")
        roles = sorted(roles_of(name, groups, server))
        peers = self._task.args.get("peers")
        if peers is None:
            peers = peers_of(name, nodes(play, variables.get("hostvars") or {}, groups, server))
        host: Host = {
            "name": name,
            "roles": roles,
            "peers": peers,
            "network": str(self._task.args.get("network") or "virtuoso"),
            "way": way(),
            "facts": None,
        }
        try:
            if self._reach(host["way"], variables):
                self._ask(host, variables)
        except AnsibleError as exc:
            host["way"]["error"] = str(exc)
        result.update(changed=False, host=host)
        return result

    def _reach(self, found: Way, variables: Vars) -> bool:
        """Whether a command runs there as it is to run. :raises AnsibleError: where the connection fails."""
        done = self._low_level_execute_command("id -un", sudoable=False)
        if done["rc"] != 0:
            found["error"] = done["stderr"] or f"id ended with {done['rc']}"
            return False
        found.update({"reached": True, "user": done["stdout"].strip(), "stage": "become"})
        found["login_password"] = way_to(variables)["password"]
        plugin = self._connection.become
        found["become"] = str(getattr(plugin, "name", "") or "") if plugin else ""
        found["password"] = bool(plugin and self.get_become_option("become_pass"))
        done = self._low_level_execute_command("id -un")
        if done["rc"] != 0:
            found["error"] = done["stderr"] or done["stdout"]
            return False
        found.update({"become_user": done["stdout"].strip(), "stage": ""})
        return True

    def _ask(self, host: Host, variables: Vars) -> None:
        """Run the module. :raises AnsibleError: where the connection fails."""
        found = host["way"]
        found["stage"] = "facts"
        libvirt = self._task.args.get("libvirt")
        arguments = {
            **self._task.args,
            "libvirt": "provider" in host["roles"] if libvirt is None else libvirt,
            "peers": host["peers"],
        }
        began = time.time()
        answer = self._execute_module(
            module_name="virtuoso.grid.host_check", module_args=arguments, task_vars=dict(variables)
        )
        ended = time.time()
        if "facts" not in answer:
            found["stage"] = stage_of(answer)
            found["error"] = f"{answer.get('msg') or ''} {answer.get('module_stderr') or ''}".strip()
            return
        host["facts"] = answer["facts"]
        found["stage"] = ""
        found["offset_min"], found["offset_max"] = clocks(began, ended, answer["facts"]["clock"])
