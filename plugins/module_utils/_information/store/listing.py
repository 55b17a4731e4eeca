# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All machines and hosts of an SQLite store, read with Python's own sqlite3 because SQLAlchemy loads slowly.

Loading SQLAlchemy takes longer than reading thousands of rows, and an inventory is read at the start of each play. The
rows are the same as those of :mod:`query`. A file that is not a complete store of this version gives nothing here:
:mod:`database` says what is wrong with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import typing as t
import urllib.parse

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import HostRow, MachineRow

VERSION = 2
"""The version of the store that these statements read; a test compares it with :data:`migrations.VERSION`."""

BUSY_TIMEOUT = 60.0
"""Seconds that a reader or writer waits for its turn. A turn takes milliseconds, also with fifty plays at once."""

# Of two columns with the same name the later is kept: site is the name of the site.
MACHINES = """
SELECT host.*, site.name AS site,
  orders.owner, orders.spec, orders.created, orders.updated, orders.generation AS ordered_generation,
  futures.uuid IS NOT NULL AS future, provider.name AS provider, provider.uuid AS provider_uuid,
  made_from.constituent AS image_uuid,
  (SELECT home.name FROM interface
   JOIN network ON network.uuid = interface.network JOIN host AS home ON home.uuid = network.home
   WHERE interface.host = host.uuid ORDER BY network.name LIMIT 1) AS network_home
FROM host
  LEFT JOIN site ON site.uuid = host.site
  LEFT JOIN orders ON orders.uuid = host.uuid
  LEFT JOIN futures ON futures.uuid = host.uuid
  LEFT JOIN virtualization AS placed ON placed."virtual" = host.uuid AND placed.role = 'provider'
  LEFT JOIN host AS provider ON provider.uuid = placed.constituent
  LEFT JOIN virtualization AS made_from ON made_from."virtual" = host.uuid AND made_from.role = 'image'
WHERE host.kind = 'machine' ORDER BY host.name
"""

HOSTS = """
SELECT host.*, site.name AS site FROM host LEFT JOIN site ON site.uuid = host.site
WHERE host.kind IN ('provider', 'home') ORDER BY host.name
"""


def open_to_read(path: str, timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """A read-only connection; the file is neither created nor changed. It begins no transaction by itself.

    :raises sqlite3.Error: if the file can't be opened.
    """
    options = "mode=ro"
    if not os.access(os.path.dirname(path), os.W_OK) and not os.path.exists(path + "-wal"):
        # A reader of a write-ahead log creates an index beside the file. Without write access it must not try.
        options = "mode=ro&immutable=1"
    return sqlite3.connect(
        f"file:{urllib.parse.quote(path)}?{options}", uri=True, timeout=timeout, isolation_level=None
    )


def file_of(store: str, directory: str) -> str | None:
    """The absolute path that the option ``store`` names, or ``None`` if it is a URL.

    :param directory: what a relative path is relative to.
    """
    path = os.path.expanduser(os.path.expandvars(store))
    if "://" in store or not path.strip() or "\0" in path:
        return None
    return os.path.abspath(os.path.join(directory, path))


def has_content(path: str) -> bool:
    """Whether there is a file that may be a store.

    :raises OSError: if the file can't be looked at.
    """
    try:
        return os.stat(path).st_size > 0
    except FileNotFoundError:
        return False


def no_store(name: str) -> GridError:
    """The error for a store that does not exist.

    :param name: its location, without secrets.
    """
    return GridError(
        "store_missing",
        "there is no store",
        object=f"store {name}",
        tried="read the store",
        remedy="Order a machine, or name the right store",
    )


def read(path: str) -> tuple[list[MachineRow], list[HostRow]] | None:
    """Machines, then providers and homes, as :func:`query.machines` and :func:`query.hosts` return them, from one state
    of the store.

    :returns: ``None`` if the file doesn't exist, isn't a store, has another version, is damaged or locked.
    """
    if not os.path.isfile(path):
        return None
    try:
        with contextlib.closing(open_to_read(path)) as connection:
            connection.execute("BEGIN")
            if connection.execute("SELECT version FROM schema_version").fetchall() != [(VERSION,)]:
                return None
            machines, hosts = _rows(connection, MACHINES), _rows(connection, HOSTS)
            return t.cast("list[MachineRow]", machines), t.cast("list[HostRow]", hosts)
    except (sqlite3.Error, ValueError, OSError):
        return None


def _rows(connection: sqlite3.Connection, statement: str) -> list[dict[str, object]]:
    cursor = connection.execute(statement)
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, values)) for values in cursor]
    for row in rows:
        for column in ("facts", "spec"):
            if row.get(column) is not None:
                row[column] = json.loads(row[column])
        if "future" in row:
            row["future"] = bool(row["future"])
    return rows
