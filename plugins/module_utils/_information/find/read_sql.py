# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A question in SQL: one SELECT of the user's own, which the database itself keeps from writing."""

from __future__ import annotations

import math
import re
import sqlite3
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.bounded import limited
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.result import FindResult
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.search import Deadline, Expired

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

_CHUNK = 500
_READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    getattr(sqlite3, "SQLITE_RECURSIVE", 33),
}
_READS = re.compile(r"(\s|\(|--[^\n]*\n|/\*.*?\*/)*(SELECT|WITH|VALUES)\b", re.IGNORECASE | re.DOTALL)

# PostgreSQL, appendix A: read_only_sql_transaction; the class of syntax errors and unknown names
_READ_ONLY, _SYNTAX = "25006", "42"


def query(connection: sa.Connection, text: str, deadline: Deadline, limit: int) -> FindResult:
    """The rows as mappings, in a result like that of other questions.

    :param connection: of ``Store.reading``, which can't write; this module is a second safeguard.
    :raises GridError: ``sql_not_read_only``, ``invalid_sql``.
    """
    if not _READS.match(text):
        raise _refused("it is not a SELECT")
    read = _file if connection.dialect.name == "sqlite" else _server
    found: list[dict[str, object]] = []
    complete = True
    try:
        with limited(connection, deadline.left if deadline.end < math.inf else math.inf):
            for part in read(connection, text):
                found += part
                if len(found) > limit:
                    break
                deadline.check()
    except Expired:
        complete = False
    return {
        "found": found[:limit],
        "answer": "complete" if complete else "cut",
        "more": True if len(found) > limit else False if complete else None,
        "seed": None,
        "cost": {
            "seconds": round(deadline.clock() - deadline.begin, 6),
            "method": "sql",
            "statements": 1,
            "rows": len(found),
            "draws": 0,
            "combinations": None,
            "expired": not complete,
        },
    }


def _refused(why: str) -> GridError:
    return GridError(
        "sql_not_read_only",
        f"only one SELECT that reads is allowed; {why}",
        tried="read the store",
        remedy="Write to the store by the modules order, placement and registration",
    )


def _invalid(said: str) -> GridError:
    return GridError(
        "invalid_sql",
        f"the database says: {said.strip()[:300]}",
        tried="read the store",
        remedy="docs/information.md has the tables",
    )


def _file(connection: sa.Connection, text: str) -> t.Iterator[list[dict[str, object]]]:
    """Rows from SQLite, whose authorizer denies everything but reading."""
    driver = t.cast(sqlite3.Connection, connection.connection.driver_connection)

    def may(action: int, first: str | None, second: str | None, *dummy: str | None) -> int:
        # The second argument is the name of a function; load_extension would run code of the user's.
        return (
            sqlite3.SQLITE_OK if action in _READING and str(second).lower() != "load_extension" else sqlite3.SQLITE_DENY
        )

    driver.execute("PRAGMA query_only=ON")
    driver.set_authorizer(may)
    cursor = driver.cursor()
    try:
        cursor.execute(text)
        names = [column[0] for column in cursor.description or ()]
        while True:
            part = cursor.fetchmany(_CHUNK)
            if not part:
                return
            yield [dict(zip(names, row)) for row in part]
    except (sqlite3.ProgrammingError, sqlite3.Warning) as exc:  # more than one statement
        raise _refused(str(exc)) from exc
    except sqlite3.DatabaseError as exc:
        name = getattr(exc, "sqlite_errorname", "")
        if name in ("SQLITE_AUTH", "SQLITE_READONLY") or "not authorized" in str(exc):
            raise _refused(str(exc)) from exc
        if name in ("SQLITE_ERROR", "") and "interrupt" not in str(exc):
            raise _invalid(str(exc)) from exc
        raise
    finally:
        cursor.close()
        driver.set_authorizer(None)


def _server(connection: sa.Connection, text: str) -> t.Iterator[list[dict[str, object]]]:
    """Rows from PostgreSQL. A cursor is for a SELECT only, and the extended protocol takes one statement."""
    driver: t.Any = connection.connection.driver_connection  # psycopg's, which may not be installed
    errors = connection.dialect.loaded_dbapi
    try:
        with driver.cursor() as cursor:
            # binary selects the extended protocol, in which a text is one statement
            cursor.execute(
                "DECLARE virtuoso_sql NO SCROLL CURSOR FOR " + text.rstrip().rstrip(";").replace("%", "%%"),
                [],
                binary=True,
            )
            while True:
                cursor.execute(f"FETCH {_CHUNK} FROM virtuoso_sql")
                names = [column.name for column in cursor.description or ()]
                part = cursor.fetchall()
                if not part:
                    return
                yield [dict(zip(names, row)) for row in part]
    except errors.Error as exc:
        state = getattr(exc, "sqlstate", None) or ""
        if state == _READ_ONLY or "multiple commands" in str(exc):
            raise _refused(str(exc).strip()) from exc
        if state.startswith(_SYNTAX):
            raise _invalid(str(exc)) from exc
        raise sa.exc.DBAPIError.instance(text, None, exc, errors.Error, connection_invalidated=driver.closed) from exc
