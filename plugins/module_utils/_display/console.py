# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address of a machine's display, and a screenshot of it."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._display.picture import Picture, to_png
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import connect, libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import check_uuid, label
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import DisplayRow, Screenshot
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import check_text
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt

# A 4K screen as PPM has 25 MB.
_LARGEST = 64 * 2**20
_AT_A_TIME = 4


def screenshot(conn: Connect, domain: Domain) -> Picture:
    """A picture of the first screen of a running machine.

    :raises GridError: ``screenshot_invalid``, ``libvirt_error``.
    """
    parts: list[bytes] = []
    size = 0

    def take(dummy: object, data: bytes, dummy_opaque: object) -> None:
        nonlocal size
        size += len(data)
        if size > _LARGEST:
            raise GridError("screenshot_invalid", f"the screenshot has more than {_LARGEST} bytes")
        parts.append(data)

    stream = conn.newStream(0)
    try:
        domain.screenshot(stream, 0, 0)
        stream.recvAll(take, None)
        stream.finish()
    except BaseException:
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()
        raise
    return to_png(b"".join(parts))


def _screenshot(conn: Connect, domain: Domain) -> Screenshot:
    picture = screenshot(conn, domain)
    content = base64.b64encode(picture.data).decode("ascii")
    return {"format": "png", "width": picture.width, "height": picture.height, "content": content}


def _one(conn: Connect, entry: object, pictures: bool) -> DisplayRow:
    if not isinstance(entry, t.Mapping) or not (entry.get("uuid") or entry.get("name")):
        raise GridError("invalid_order", "the machine has neither uuid nor name", remedy="Give at least one of them")
    uuid = check_uuid(entry["uuid"]) if entry.get("uuid") else None
    name = check_text("name", entry["name"]) if entry.get("name") else None
    domain = observe.find_domain(conn, uuid, name)[0]
    if domain is None:
        raise GridError(
            "machine_unknown", "no such machine on this host", remedy="Look where it is: virtuoso.grid.machine_info"
        )
    with translated("look at the display"):
        display = domain_xml.display_of(domain_xml.parse(domain.XMLDesc(0)))
        shown = pictures and display["port"] is not None and domain.isActive()
        return {
            "uuid": domain.UUIDString(),
            "display": display,
            "screenshot": _screenshot(conn, domain) if shown else None,
        }


def displays(uri: str, entries: t.Sequence[object], pictures: bool) -> list[Result]:
    """The displays of machines, as the module ``display`` returns them.

    :param pictures: whether to take screenshots.
    """
    if not entries:
        return []

    def one(entry: object) -> Result:
        identity = {"uuid": entry.get("uuid") if isinstance(entry, t.Mapping) else None}
        return {
            **identity,
            **attempt(
                label(entry),
                lambda: dict(_one(hypervisor.conn, entry, pictures)),
                kind="machine",
                tried="look at its display",
            ),
        }

    with connect(uri) as hypervisor, concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(one, entries))
