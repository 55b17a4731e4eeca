# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of ``image_transfer``: its progress on the terminal, and the way through the controller."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Image
from ansible_collections.virtuoso.grid.plugins.plugin_utils._progress_action import ProgressAction
from ansible_collections.virtuoso.grid.plugins.plugin_utils._ssh import connection_to, relayed

Fields = t.Dict[str, object]


def _images(result: t.Mapping[str, object]) -> list[Image]:
    images = result.get("images")
    return images if isinstance(images, list) else []


def out_of_reach(result: t.Mapping[str, object]) -> bool:
    """Whether an image didn't come because the source couldn't be reached (pure)."""
    return any((image.get("failure") or {}).get("code") == "source_unreachable" for image in _images(result))


def _port(source: t.Mapping[str, object]) -> int:
    """The port of the source's SSH server."""
    return int(str(source.get("port") or 22))


def through(source: t.Mapping[str, object], port: int) -> Fields:
    """The source as it is reached at a port of the destination's loopback; its key is known by its address (pure)."""
    host, own = str(source["host"]), _port(source)
    known_as = host if own == 22 else f"[{host}]:{own}"
    return {
        **source,
        "name": source.get("name") or host,
        "host": "127.0.0.1",
        "port": port,
        "key_name": source.get("key_name") or known_as,
        "tls_port": 0,
    }


class ActionModule(ProgressAction):
    """The module with its progress, once more through the controller where the destination can't reach the source."""

    MODULE = "virtuoso.grid.image_transfer"

    def _watched(self, arguments: Fields, task_vars: Fields) -> Fields:
        route = arguments.get("route") or "auto"
        result: Fields = {}
        if route != "relay" or self._task.check_mode:
            result = self._routed(super()._watched(arguments, task_vars), "direct")
            if route != "auto" or not out_of_reach(result):
                return result
        source = arguments.get("source")
        if not isinstance(source, dict) or not source.get("host"):
            return super()._watched(arguments, task_vars)
        try:
            there = connection_to(str(source.get("name") or source["host"]), task_vars, self._play_context)
            with relayed(there, self._connection, _port(source)) as port:
                return self._routed(
                    super()._watched({**arguments, "source": through(source, port)}, task_vars), "relay"
                )
        except GridError as exc:
            # The failure is that the source is out of reach; why there was no way round is a detail of it.
            return {**result, "relay": exc.msg} if result else exc.result()

    @staticmethod
    def _routed(result: Fields, route: str) -> Fields:
        for image in _images(result):
            image["route"] = route
        return result
