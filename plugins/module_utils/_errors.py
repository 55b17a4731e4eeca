# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one typed error of the collection: a message for people, a ``failure`` dictionary for programs."""

from __future__ import annotations

import typing as t

Result = t.Dict[str, object]
"""What a module returns, or a batch returns for one of its objects; ``changed`` and ``actions`` are always in it, and
``failed``, ``msg`` and ``failure`` where it failed (:meth:`GridError.result`)."""


class GridError(Exception):
    """Something that was asked for could not be done.

    :param code: machine-readable, snake_case; its meaning never changes. Returned as ``failure.code``.
    :param msg: what is wrong, one sentence without a full stop.
    :param host: the host where it happened; the module runner fills it in where it is left out.
    :param object: what it happened to, for example ``machine web1``.
    :param tried: the operation or command that failed.
    :param remedy: what the user can do about it.
    :param details: further JSON-serialisable facts; they become keys of ``failure``.
    """

    def __init__(
        self,
        code: str,
        msg: str,
        *,
        host: str | None = None,
        object: str | None = None,  # pylint: disable=redefined-builtin
        tried: str | None = None,
        remedy: str | None = None,
        **details: object,
    ) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.host = host
        self.object = object
        self.tried = tried
        self.remedy = remedy
        # Each code has details of its own; who reads them knows the code
        self.details: dict[str, t.Any] = details

    def on(self, *, host: str | None = None, object: str | None = None, tried: str | None = None) -> GridError:  # pylint: disable=redefined-builtin
        """Fill in what is still unknown, overwrite nothing. Returns the error itself, to be raised."""
        self.host = self.host or host
        self.object = self.object or object
        self.tried = self.tried or tried
        return self

    def failure(self) -> dict[str, object]:
        """The machine-readable half, returned as ``failure`` beside ``msg``: ``code``, what is known of ``host``,
        ``object``, ``tried`` and ``remedy``, and the details."""
        known = {
            "code": self.code,
            "host": self.host,
            "object": self.object,
            "tried": self.tried,
            "remedy": self.remedy,
        }
        return {**{key: value for key, value in known.items() if value is not None}, **self.details}

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.host, self.object) if part)
        text = f"{where}: {self.msg}" if where else self.msg
        if self.tried:
            text += f" (tried: {self.tried})"
        if self.remedy:
            text += f". {self.remedy}"
        return text

    def result(self) -> Result:
        """The error as the result of one object of a batch, or as arguments of ``fail_json``: ``failed``, ``msg``,
        ``failure``."""
        return {"failed": True, "msg": str(self), "failure": self.failure()}
