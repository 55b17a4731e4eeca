# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a function to a module: the one place where typed errors become ``fail_json``."""

from __future__ import annotations

import platform
import traceback
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

Result = t.Dict[str, t.Any]


CONTROLLER = "controller"
"""What errors call the host of a module of the information service; its node name would tell a user nothing."""


class _Here:
    """What errors call the host that this runs on."""

    name = platform.node()


def run_module(
    work: t.Callable[[AnsibleModule], Result], *, where: str | None = None, **module_arguments: t.Any
) -> None:
    """Make the module, let ``work`` do it, end with ``exit_json`` or, on a GridError, with ``fail_json``.

    :param where: what errors call the host, instead of its node name.
    """
    _Here.name = where or platform.node()
    module = AnsibleModule(**module_arguments)
    try:
        result = work(module)
    except GridError as exc:
        module.fail_json(exception=traceback.format_exc(), **exc.on(host=_Here.name).result())
    else:
        finish(module, result)


def finish(module: AnsibleModule, result: Result) -> None:
    """End the module with this."""
    told = ended(result)
    if told.get("failed"):
        module.fail_json(**told)
    module.exit_json(**told)


def ended(result: Result) -> Result:
    """What a module ends with: a batch with failed objects ends as failed, with every object's own result still in it
    (pure)."""
    for batch in (value for value in result.values() if isinstance(value, list)):
        failed = [item for item in batch if isinstance(item, dict) and item.get("failed")]
        if failed:
            return {
                "failed": True,
                "msg": f"{len(failed)} of {len(batch)} failed: " + "; ".join(item["msg"] for item in failed),
                "failure": {"code": "some_failed", "codes": sorted({item["failure"]["code"] for item in failed})},
                **result,
            }
    return result


def attempt(name: str, work: t.Callable[[], Result], *, kind: str, tried: str) -> Result:
    """The result of one object of a batch: ``work``'s own, or its error, so that the others are still served.

    :param kind: the object's noun, for example ``machine``; with ``name`` it names the object in the error.
    """
    try:
        return {"name": name, "changed": False, **work()}
    except GridError as exc:
        return {
            "name": name,
            "changed": False,
            **exc.on(host=_Here.name, object=f"{kind} {name}", tried=tried).result(),
        }
