# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening the store: where it is, its transactions, its version, and the typed errors of all that can go wrong.

There is one writer at a time: on SQLite a writing transaction begins with ``BEGIN IMMEDIATE``, on PostgreSQL with an
advisory lock, so what it reads stays true until it commits. Readers never wait for it (write-ahead log, MVCC).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import sqlite3
import sys
import typing as t
import urllib.parse

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import listing, migrations, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.listing import BUSY_TIMEOUT

try:
    import sqlalchemy as sa
    from sqlalchemy import event, pool
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

CONNECT_TIMEOUT = 10
"""Seconds that a server has to answer, unless the URL has another ``connect_timeout``."""

_ADVISORY_LOCK = 0x76697274  # any number will do, as long as all writers use the same

_REMEDIES = {
    "store_busy": "Another program holds the store's lock; end it, or try again",
    "store_read_only": "Give the user who runs the playbook write permission on the file and its directory, "
    "or name another store",
    "store_full": "Make room on the file system; the store is as it was before",
    "store_corrupt": "Put back a copy, or move the file away: "
    "the next play that registers the providers rebuilds what runs",
    "store_unopenable": "Check that the path is a file and that its directory may be searched and written to",
    "store_unreachable": "Check that the database server runs and accepts this user (PGPASSFILE, PGSERVICE)",
    "store_input_output": "Check the disk that the store is on, and that it is not full",
    "store_failed": "This is a bug of the collection; report it with this message",
}

_BY_SQLITE_NAME = (
    ("SQLITE_BUSY", "store_busy", "the store stayed locked for too long"),
    ("SQLITE_LOCKED", "store_busy", "the store stayed locked for too long"),
    ("SQLITE_READONLY", "store_read_only", "the store can't be written to"),
    ("SQLITE_PERM", "store_read_only", "access to the store is denied"),
    ("SQLITE_FULL", "store_full", "the disk is full"),
    ("SQLITE_CORRUPT", "store_corrupt", "the store's file is damaged"),
    ("SQLITE_NOTADB", "store_corrupt", "the file is not an SQLite database"),
    ("SQLITE_CANTOPEN", "store_unopenable", "the store can't be opened"),
    ("SQLITE_IOERR", "store_input_output", "the store can't be read or written"),
)

_BY_ERRNO = {
    errno.ENOSPC: ("store_full", "the disk is full"),
    errno.EDQUOT: ("store_full", "the disk quota is used up"),
    errno.EROFS: ("store_read_only", "the file system is read-only"),
    errno.EACCES: ("store_read_only", "access to the store is denied"),
    errno.EPERM: ("store_read_only", "access to the store is denied"),
}


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a store is: a file of SQLite, or the URL of another database."""

    path: str | None
    url: str | None

    def __str__(self) -> str:
        return self.path or self.url or ""


def check_library() -> None:
    """:raises GridError: ``library_missing`` where this Python has no SQLAlchemy 2."""
    if schema.SQLALCHEMY_ERROR is None and not sa.__version__.startswith(("0.", "1.")):
        return
    raise GridError(
        "library_missing",
        f"the information service needs SQLAlchemy 2, which {sys.executable} does not have",
        remedy=f"Run: {sys.executable} -m pip install 'sqlalchemy>=2'. On Debian 13: apt install python3-sqlalchemy. "
        "Or set ansible_python_interpreter of localhost to a Python that has it",
        library="sqlalchemy",
        python=sys.executable,
    )


def locate(store: str, directory: str | None = None) -> Location:
    """Where the store named by the option ``store`` is.

    :param directory: what a relative path is relative to; the working directory by default.
    :raises GridError: ``invalid_store``, ``store_password_in_url``.
    """
    if "://" not in store:
        path = os.path.expanduser(os.path.expandvars(store))
        if not path.strip() or "\0" in path:
            raise GridError("invalid_store", "the option store is empty", remedy="Give a path or an SQLAlchemy URL")
        return Location(os.path.abspath(os.path.join(directory or os.getcwd(), path)), None)
    try:
        url = sa.make_url(store)
    except (sa.exc.ArgumentError, ValueError) as exc:
        # Don't show the text: it may contain a password.
        raise GridError(
            "invalid_store",
            "the option store is not a URL that SQLAlchemy understands",
            remedy="Write it as postgresql+psycopg://user@host/database",
        ) from exc
    if url.password or {"password", "passfile", "sslpassword"} & {key.lower() for key in url.query}:
        raise GridError(
            "store_password_in_url",
            "the option store holds a password, which would end up in logs",
            remedy="Take it out of the URL; put it into the file that PGPASSFILE names (~/.pgpass), "
            "or use a PostgreSQL service file (PGSERVICE)",
        )
    if url.get_backend_name() != "sqlite":
        return Location(None, url.render_as_string())
    if not url.database or url.database.startswith((":", "file:")) or url.query:
        raise GridError(
            "invalid_store", f"{store} is not a file", remedy="Write sqlite:////absolute/path, or just the path"
        )
    return Location(os.path.abspath(os.path.join(directory or os.getcwd(), url.database)), None)


class Store:
    """The relational store. Every use is one transaction, ``with store.reading()`` or ``with store.writing()``."""

    def __init__(self, store: str, *, directory: str | None = None, timeout: float = BUSY_TIMEOUT) -> None:
        """:param store: path or SQLAlchemy URL, as the option ``store``. :raises GridError: see :func:`locate`."""
        check_library()
        self.location = locate(store, directory)
        self.timeout = timeout

    @contextlib.contextmanager
    def reading(self, *, empty_if_missing: bool = False) -> t.Iterator[sa.Connection]:
        """A connection that can't write; it sees one state of the store until the end of the block.

        :param empty_if_missing: read a store that doesn't exist as an empty one, for check mode.
        :raises GridError: ``store_missing``, ``store_older``, ``store_newer``, ``store_foreign``, ``store_corrupt``...
        """
        if self.location.path is None or listing.has_content(self.location.path):
            with self._typed("read"), contextlib.closing(self._connect(write=False)) as connection, connection.begin():
                if self._check_version(connection, write=False):
                    yield connection
                    return
        if not empty_if_missing:
            raise listing.no_store(str(self.location))
        engine = sa.create_engine("sqlite://", poolclass=pool.StaticPool)
        with self._typed("read"), engine.begin() as connection:
            migrations.migrate(connection, 0)
            yield connection

    @contextlib.contextmanager
    def writing(self) -> t.Iterator[sa.Connection]:
        """A connection whose transaction excludes other writers. It commits at the end of the block, and rolls back on
        any error.

        Creates a store that is missing, and migrates one of an older version.
        """
        with self._typed("write"):
            path = self.location.path
            if path is not None and not listing.has_content(path):
                _create(path)
            elif path is not None and not os.access(os.path.dirname(path), os.W_OK):
                # SQLite itself would only report that it can't open the file.
                raise self._error("store_read_only", "the store's directory can't be written to").on(
                    tried="write the store"
                )
            with contextlib.closing(self._connect(write=True)) as connection, connection.begin():
                self._check_version(connection, write=True)
                yield connection

    def _connect(self, *, write: bool) -> sa.Connection:
        if self.location.path is None:
            return self._connect_server(write=write)
        engine = sa.create_engine("sqlite://", creator=lambda: self._open_file(write), poolclass=pool.NullPool)

        @event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine.connect()

    def _open_file(self, write: bool) -> sqlite3.Connection:
        """A connection to a file that exists. SQLAlchemy's events begin the transactions, hence no isolation level."""
        path = t.cast(str, self.location.path)
        if write:
            url = f"file:{urllib.parse.quote(path)}?mode=rw"
            connection = sqlite3.connect(url, uri=True, timeout=self.timeout, isolation_level=None)
        else:
            connection = listing.open_to_read(path, self.timeout)
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _connect_server(self, *, write: bool) -> sa.Connection:
        try:
            url = sa.make_url(t.cast(str, self.location.url))
            if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
                url = url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT)})
            engine = sa.create_engine(url, poolclass=pool.NullPool)
        except ImportError as exc:
            raise GridError(
                "library_missing",
                f"{sys.executable} lacks the driver of this store: {exc}",
                remedy=f"Run: {sys.executable} -m pip install 'psycopg[binary]' (for postgresql+psycopg://)",
                python=sys.executable,
            ) from exc
        except sa.exc.ArgumentError as exc:
            raise self._error(
                "invalid_store", str(exc), "Write the URL as postgresql+psycopg://user@host/database"
            ) from exc

        @event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            if connection.dialect.name == "postgresql":
                if write:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(self.timeout * 1000)}")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
                else:
                    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

        return engine.connect()

    def _check_version(self, connection: sa.Connection, *, write: bool) -> bool:
        """Whether there is a store. A writer migrates an older one first."""
        version = migrations.version_of(connection)
        if version is None:
            raise self._error("store_foreign", "this is another program's database", "Name another store")
        if version > migrations.VERSION:
            raise self._error(
                "store_newer",
                f"the store has version {version}, this release of the collection knows version {migrations.VERSION}",
                "Upgrade the collection on this controller",
                version=version,
                known=migrations.VERSION,
            )
        if version == migrations.VERSION:
            return True
        if write:
            migrations.migrate(connection, version)
            return True
        if version == 0:
            return False
        raise self._error(
            "store_older",
            f"the store has version {version}, this release of the collection reads version {migrations.VERSION}",
            "Run a playbook that writes to it, for example virtuoso.grid.order, which brings it up to date",
            version=version,
            known=migrations.VERSION,
        )

    def _error(self, code: str, msg: str, remedy: str | None = None, **details: object) -> GridError:
        error = GridError(code, msg, object=f"store {self.location}", remedy=remedy or _REMEDIES.get(code))
        error.details.update(details)
        return error

    @contextlib.contextmanager
    def _typed(self, doing: str) -> t.Iterator[None]:
        """Turn errors of the database, its driver and the file system into typed ones."""
        try:
            yield
        except sa.exc.DBAPIError as exc:
            raise self._error(*_classify(exc)).on(tried=f"{doing} the store") from exc
        except sqlite3.Error as exc:
            raise self._error(*_classify_sqlite(exc)).on(tried=f"{doing} the store") from exc
        except sa.exc.SQLAlchemyError as exc:
            raise self._error("store_failed", str(exc)[:500]).on(tried=f"{doing} the store") from exc
        except OSError as exc:
            code, msg = _BY_ERRNO.get(exc.errno or 0, ("store_unopenable", exc.strerror or str(exc)))
            raise self._error(code, msg).on(tried=f"{doing} the store") from exc


_BY_SQLSTATE = {
    "25006": ("store_read_only", "the store can't be written to"),
    "42501": ("store_read_only", "the user may not do this"),
    "53100": ("store_full", "the server's disk is full"),
    "55P03": ("store_busy", "the store stayed locked for too long"),
}
"""Error codes of PostgreSQL (appendix A of its manual) that have an error of their own here."""


def _classify(exc: sa.exc.DBAPIError) -> tuple[str, str]:
    if isinstance(exc.orig, sqlite3.Error):
        return _classify_sqlite(exc.orig)
    said = str(exc.orig).strip()[:500]
    known = _BY_SQLSTATE.get(getattr(exc.orig, "sqlstate", None) or "")
    if known is not None:
        return known[0], f"{known[1]} ({said})"
    if exc.connection_invalidated or isinstance(exc, (sa.exc.OperationalError, sa.exc.InterfaceError)):
        return "store_unreachable", said
    return "store_failed", said


def _classify_sqlite(exc: sqlite3.Error) -> tuple[str, str]:
    name = getattr(exc, "sqlite_errorname", "")
    for prefix, code, msg in _BY_SQLITE_NAME:
        if name.startswith(prefix):
            return code, f"{msg} ({exc})"
    return "store_failed", str(exc)[:500]


def _create(path: str) -> None:
    """Create an empty SQLite file with a write-ahead log that only its owner may read.

    One process at a time does it, and may be killed at any moment. The directory is created too, but not its parents:
    if those are missing, the path is probably a typing error.
    """
    parent = os.path.dirname(path)
    try:
        os.mkdir(parent, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError as exc:
        raise GridError(
            "store_directory_missing",
            f"the directory {os.path.dirname(parent)} does not exist",
            object=f"store {path}",
            tried="make the store",
            remedy=f"Make it (mkdir -p {os.path.dirname(parent)}), or name another store",
        ) from exc
    lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if listing.has_content(path):
            return
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        os.close(lock)
