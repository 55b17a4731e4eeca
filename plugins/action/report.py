# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``report``: print the table, fail where a machine failed."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.virtuoso.grid.plugins.module_utils._play.report import (
    join,
    pictures,
    refusal,
    shown,
    steps_of,
    table,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._play.rows import side_failures
from ansible_collections.virtuoso.grid.plugins.plugin_utils._output import output_is_text


class ActionModule(ActionBase):
    """Needs no connection: it only shows what earlier tasks returned."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> dict[str, object]:
        """Join the results, print the table, return both; failed when any machine failed."""
        result: dict[str, object] = super().run(tmp, task_vars)
        dummy, arguments = self.validate_argument_spec(
            argument_spec={
                "results": {"type": "list", "elements": "raw", "required": True},
                "columns": {
                    "type": "list",
                    "elements": "str",
                    "default": ["name", "reference", "image", "provider", "state", "address", "console"],
                },
                "title": {"type": "str"},
                "what": {"type": "str", "default": "machines"},
                "warnings": {"type": "list", "elements": "str", "default": []},
                "side_steps": {"type": "dict", "default": {}},
            }
        )
        rows = join(steps_of(arguments["results"]))
        display = Display()
        lines = table(rows, shown(rows, arguments["columns"], display.verbosity))
        if output_is_text():
            for line in ["", arguments["title"], *lines, pictures(rows)]:
                if line is not None:
                    display.display(line)
        result.update(changed=False, machines=rows, table=lines, **refusal(rows, arguments["what"]))
        warnings = [*arguments["warnings"], *side_failures(_play_hosts(task_vars or {}), arguments["side_steps"])]
        if warnings:
            result["warnings"] = warnings
        return result


def _play_hosts(variables: t.Mapping[str, object]) -> dict[str, t.Mapping[str, object]]:
    """The variables of each host of the play, by its name."""
    hosts = t.cast("t.Mapping[str, t.Mapping[str, object]]", variables.get("hostvars") or {})
    names = t.cast("t.Sequence[str]", variables.get("ansible_play_hosts_all") or ())
    # The controller, where no inventory names it, has no variables of a host.
    return {name: hosts[name] for name in names if name in hosts}
