# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements that the database itself ends at the deadline."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.search import Cell, Deadline, Expired, Row

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

_CHUNK = 2000
_INSTRUCTIONS = 2000
"""SQLite looks at the clock after so many instructions of its virtual machine: some tens of microseconds."""

_QUERY_CANCELED = "57014"  # PostgreSQL, appendix A: error codes


class Bounded:
    """Statements on a connection, each ended at the deadline; counts them and what they returned."""

    def __init__(self, connection: sa.Connection, deadline: Deadline) -> None:
        self.connection = connection
        self.deadline = deadline
        self.statements = 0
        self.rows = 0

    def all(
        self, statement: sa.Executable, parameters: t.Mapping[str, Cell] | None = None, *, bounded: bool = True
    ) -> list[Row]:
        """All rows.

        :param bounded: whether the deadline applies.
        :raises Expired: if they didn't come in time.
        """
        rows, whole = self.some(statement, parameters, bounded=bounded)
        if not whole:
            raise Expired
        return rows

    def some(
        self,
        statement: sa.Executable,
        parameters: t.Mapping[str, Cell] | None = None,
        *,
        share: float = 1.0,
        bounded: bool = True,
    ) -> tuple[list[Row], bool]:
        """The rows that came in time, and whether these are all.

        :param share: the part of the time left that may be used, up to 1.
        """
        self.statements += 1
        end = (
            self.deadline.clock() + self.deadline.left * share if bounded and self.deadline.end < math.inf else math.inf
        )
        rows: list[Row] = []
        try:
            with limited(self.connection, end - self.deadline.clock()):
                result = self.connection.execute(
                    statement, dict(parameters or {}), execution_options={"stream_results": end < math.inf}
                )
                if end == math.inf:
                    rows = list(result.all())
                else:
                    for part in result.partitions(_CHUNK):
                        rows.extend(part)
                        if self.deadline.clock() >= end:
                            raise Expired
        except Expired:
            self.rows += len(rows)
            return rows, False
        self.rows += len(rows)
        return rows, True


@contextlib.contextmanager
def limited(connection: sa.Connection, seconds: float) -> t.Iterator[None]:
    """Let the database end what runs in this block after so many seconds.

    :raises Expired: if it did.
    """
    if seconds == math.inf:
        yield
        return
    if seconds <= 0:
        raise Expired
    manager = _limited_file if connection.dialect.name == "sqlite" else _limited_server
    with manager(connection, seconds):
        yield


@contextlib.contextmanager
def _limited_file(connection: sa.Connection, seconds: float) -> t.Iterator[None]:
    driver = t.cast(sqlite3.Connection, connection.connection.driver_connection)
    end = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() >= end, _INSTRUCTIONS)
    try:
        yield
    except (sa.exc.OperationalError, sqlite3.OperationalError) as exc:
        if "interrupt" in str(getattr(exc, "orig", exc)):
            raise Expired from exc
        raise
    finally:
        driver.set_progress_handler(None, 0)


@contextlib.contextmanager
def _limited_server(connection: sa.Connection, seconds: float) -> t.Iterator[None]:
    """Roll back to a savepoint, so that the transaction survives a statement that was ended."""
    point = connection.begin_nested()
    try:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
        yield
    except sa.exc.DBAPIError as exc:
        point.rollback()
        if getattr(exc.orig, "sqlstate", None) == _QUERY_CANCELED:
            raise Expired from exc
        raise
    except BaseException:
        point.rollback()
        raise
    else:
        # This also undoes SET LOCAL.
        point.rollback()
