# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the information service from within an action plugin, in the controller's own process.

The module ``registration`` does the same, but takes longer to start than to work; and what a task has brought about is
in the store as soon as it is true, not when all that the play does besides is over.
"""

from __future__ import annotations

import importlib
import typing as t

from ansible.utils.display import Display
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils._stations import Background

_ROOM = "ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.transaction"

Result = t.Dict[str, t.Any]


def _loaded() -> Result:
    return {"register": importlib.import_module(_ROOM).register}


class Recorder:
    """Records machines where they have come to be. The database library is loaded in the background from the beginning.

    :param given: ``store``, and ``providers`` as the module ``registration`` takes them.
    :param directory: what a relative path of the store is relative to.
    """

    def __init__(self, given: t.Mapping[str, t.Any], directory: str) -> None:
        self._given = given
        self._directory = directory
        self._loading = Background(_loaded)

    def record(self, seen: t.Sequence[t.Mapping[str, t.Any]]) -> set[str]:
        """Write them; the uuids of those that are in the store as they are now.

        Whatever goes wrong is left to the task that writes the others: it tries again, and tells what is wrong.
        """
        register = self._loading.result().get("register")
        if register is None or not seen:
            return set()
        try:
            result = register(
                str(self._given["store"]),
                {"providers": self._given.get("providers"), "machines": list(seen)},
                directory=self._directory,
            )
        except Exception as exc:  # pylint: disable=broad-except
            # The machines have moved whatever becomes of this.
            Display().v(f"the store is told later: {exc.msg if isinstance(exc, GridError) else exc}")
            return set()
        if any(row.get("failed") for row in result["providers"]):
            return set()
        return {row["uuid"] for row in result["machines"] if not row.get("failed")}


def marked(machines: t.Sequence[t.Mapping[str, t.Any]], recorded: set[str]) -> list[Result]:
    """Machines of a journey of which those that the store knows of have ``recorded`` (pure)."""
    return [{**machine, "recorded": True} if machine["uuid"] in recorded else dict(machine) for machine in machines]
