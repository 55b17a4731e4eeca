# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL for a question: its conditions, keys and shown columns as SQLAlchemy statements. Builds them, runs none."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.conditions import HOSTS, Condition, Value
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

Expression = t.Any
"""A column, condition, table or join of SQLAlchemy, whose own types don't cover how they are combined here."""

_OPERATORS: dict[str, t.Callable[[Expression, t.Sequence[Value]], Expression]] = {
    "==": lambda column, values: column == values[0],
    "!=": lambda column, values: column != values[0],
    "<": lambda column, values: column < values[0],
    "<=": lambda column, values: column <= values[0],
    ">": lambda column, values: column > values[0],
    ">=": lambda column, values: column >= values[0],
    "in": lambda column, values: column.in_(values),
    "not in": lambda column, values: column.not_in(values),
    "like": lambda column, values: column.ilike(values[0]),
    "known": lambda column, dummy: column.is_not(None),
    "unknown": lambda column, dummy: column.is_(None),
}


class Path(t.NamedTuple):
    """The way from an object to one of its columns that is in another table."""

    start: Expression  # the column that has the object's uuid
    joins: tuple[tuple[Expression, Expression], ...]  # table and condition of each join
    column: Expression  # what is shown
    key: Expression  # equal for equal values of column, and cheaper to read


def _paths(kind: str, root: Expression) -> dict[str, Path]:
    """The columns of a kind of object that are not in its own table."""
    if kind in HOSTS:
        return _host_paths(root)
    if kind == "network":
        home = schema.HOST.alias("home")
        return {"home": Path(root.c.home, ((home, home.c.uuid == root.c.home),), home.c.name, root.c.home)}
    if kind == "link":
        sites = {name: schema.SITE.alias(name) for name in ("site_a", "site_b")}
        return {
            name: Path(root.c[name], ((site, site.c.uuid == root.c[name]),), site.c.name, root.c[name])
            for name, site in sites.items()
        }
    if kind == "device":
        hosts = {name: schema.HOST.alias(name) for name in ("home", "machine")}
        return {
            name: Path(root.c[name], ((host, host.c.uuid == root.c[name]),), host.c.name, root.c[name])
            for name, host in hosts.items()
        }
    return {}


def _host_paths(root: Expression) -> dict[str, Path]:
    site, network, interface, orders = schema.SITE, schema.NETWORK, schema.INTERFACE, schema.ORDERS
    on, made = schema.VIRTUALIZATION.alias("on_provider"), schema.VIRTUALIZATION.alias("made_from")
    provider, image = schema.HOST.alias("provider"), schema.IMAGE
    plugged = (interface, interface.c.host == root.c.uuid)
    placed = (on, sa.and_(on.c.virtual == root.c.uuid, on.c.role == "provider"))
    layered = (made, sa.and_(made.c.virtual == root.c.uuid, made.c.role == "image"))
    of_image = (layered, (image, image.c.uuid == made.c.constituent))
    return {
        "site": Path(root.c.site, ((site, site.c.uuid == root.c.site),), site.c.name, root.c.site),
        "network": Path(
            interface.c.host,
            (plugged, (network, network.c.uuid == interface.c.network)),
            network.c.name,
            interface.c.network,
        ),
        "mac": Path(interface.c.host, (plugged,), interface.c.mac, interface.c.mac),
        "owner": Path(orders.c.uuid, ((orders, orders.c.uuid == root.c.uuid),), orders.c.owner, orders.c.owner),
        "provider": Path(
            on.c.virtual, (placed, (provider, provider.c.uuid == on.c.constituent)), provider.c.name, on.c.constituent
        ),
        "image": Path(made.c.virtual, of_image, image.c.name, image.c.name),
        "image_digest": Path(made.c.virtual, of_image, image.c.digest, image.c.digest),
    }


def memory_available(host: Expression, now: str) -> Expression:
    """The bytes of memory that a provider can still promise; unknown if any part of it is.

    This is the lesser of what is free and what isn't allocated, minus what is held for futures and what owners have
    reserved for machines to come.
    """
    on, future, held = (
        schema.VIRTUALIZATION.alias("holding"),
        schema.FUTURES.alias("held_future"),
        schema.HOST.alias("held"),
    )
    reserved = schema.RESERVATION.alias("reserved")
    promised = (
        sa.select(sa.func.coalesce(sa.func.sum(held.c.memory), 0))
        .select_from(on)
        .join(future, future.c.uuid == on.c.virtual)
        .join(held, held.c.uuid == on.c.virtual)
        .where(on.c.constituent == host.c.uuid, on.c.role == "provider")
        .correlate(host)
        .scalar_subquery()
    )
    booked = (
        sa.select(sa.func.coalesce(sa.func.sum(reserved.c.memory), 0))
        .where(reserved.c.provider == host.c.uuid, reserved.c.machine.is_(None), reserved.c.state == "admitted")
        .where(reserved.c.begin <= now, reserved.c.end > now)
        .correlate(host)
        .scalar_subquery()
    )
    unallocated = host.c.memory - host.c.memory_allocated
    lesser = sa.case((host.c.memory_free < unallocated, host.c.memory_free), else_=unallocated)
    return lesser - promised - booked


class Relation:
    """One kind of object as a relation with the columns of :data:`conditions.COLUMNS`.

    :param include: as in the question; ``None`` is everything that exists.
    :param sites: uuids of the sites in the question's scope, or ``None``.
    :param now: the time at which reservations count.
    :param missing: whether machines that vanished count as existing.
    """

    def __init__(
        self,
        kind: str,
        *,
        include: t.Collection[str] | None = None,
        sites: t.Collection[str] | None = None,
        now: str = "",
        missing: bool = False,
    ) -> None:
        self.missing = missing
        self.kind = kind
        self.root = schema.HOST if kind in HOSTS else schema.METADATA.tables[kind]
        self.include = include
        self.sites = sites
        self.now = now
        self.paths = _paths(kind, self.root)

    def column(self, name: str) -> Expression:
        """A column of the object's own table, or one that is computed from others."""
        if name == "memory_available":
            return memory_available(self.root, self.now)
        if self.kind == "network" and name == "hosts":
            plug = schema.INTERFACE.alias("plug")
            return (
                sa.select(sa.func.count())
                .where(plug.c.network == self.root.c.uuid)
                .correlate(self.root)
                .scalar_subquery()
            )
        if self.kind == "image" and name == "size":
            part, layer = schema.IMAGE_LAYER, schema.LAYER
            total = sa.select(sa.func.sum(layer.c.size)).join_from(part, layer, layer.c.uuid == part.c.layer)
            return total.where(part.c.image == self.root.c.uuid).correlate(self.root).scalar_subquery()
        return self.root.c[name]

    def condition(self, condition: Condition) -> Expression:
        """The condition as SQL. One on another table is met if any row there meets it, so a host on two networks is on
        each of them."""
        test = _OPERATORS[condition.operator]
        path = self.paths.get(condition.column)
        if path is None:
            return test(self.column(condition.column), condition.values)
        if condition.operator == "unknown":
            return ~self._exists(path, path.column.is_not(None))
        return self._exists(path, test(path.column, condition.values))

    def _exists(self, path: Path, test: Expression) -> Expression:
        """Whether such a row exists, as an uncorrelated subquery, which is run once and not for each row."""
        first, dummy = path.joins[0]
        if path.start.table is self.root:  # a foreign key of the object itself
            return path.start.in_(sa.select(first.c.uuid).where(test))
        inner = sa.select(path.start).select_from(first)
        for table, on in path.joins[1:]:
            inner = inner.join(table, on)
        # ``in_`` below is the first join's condition, except for the role that it may name.
        if "role" in first.c:
            inner = inner.where(first.c.role == ("image" if first.name == "made_from" else "provider"))
        return self.root.c.uuid.in_(inner.where(test))

    def natural(self, asked: t.Collection[str]) -> list[Expression]:
        """The conditions on an object's nature: by default, that it exists.

        :param asked: the columns that conditions name. A condition on missing or state finds missing machines too.
        """
        if self.kind not in HOSTS:
            return []
        host = self.root
        tests = []
        if self.kind == "machine":
            # coalesce keeps SQLite from using the index on kind: most hosts are machines, others select better.
            tests.append(sa.func.coalesce(host.c.kind, "") == "machine")
        elif self.kind != "host":
            tests.append(host.c.kind == self.kind)
        future = sa.select(schema.FUTURES.c.uuid)
        include = {"virtual", "physical"} if self.include is None else set(self.include)
        if self.kind == "host" and "virtual" not in include and "future" not in include:
            tests.append(host.c.kind != "machine")
        elif self.kind == "host" and "physical" not in include:
            tests.append(host.c.kind == "machine")
        if not self.missing and "missing" not in asked and "state" not in asked:
            tests.append(host.c.missing.is_(None))
        if self.kind in ("host", "machine"):
            if "future" not in include:
                tests.append(host.c.uuid.not_in(future))
            elif "virtual" not in include:
                tests.append(sa.or_(host.c.uuid.in_(future), host.c.kind != "machine"))
        return tests

    def matching(self, where: t.Sequence[Condition]) -> list[Expression]:
        """All conditions on a single object."""
        tests = [*map(self.condition, where), *self.natural({condition.column for condition in where})]
        if self.sites is not None:
            tests.append((self.root.c.uuid if self.kind == "site" else self.root.c.site).in_(sorted(self.sites)))
        return tests

    def select(self, columns: t.Sequence[str], *, keys: t.Sequence[str] = ()) -> sa.Select:
        """The object's uuid, then ``columns`` as they are shown, then ``keys`` in their cheapest form. Objects without
        a key are left out."""
        joins: dict[Expression, tuple[Expression, bool]] = {}
        chosen = []
        for name in columns:
            path = self.paths.get(name)
            chosen.append((path.column if path else self.column(name)).label(name))
            for table, on in path.joins if path else ():
                joins.setdefault(table, (on, True))
        for name in keys:
            path = self.paths.get(name)
            chosen.append((path.key if path else self.column(name)).label(f"key_{name}"))
            if path is None or path.key.table is self.root:
                continue
            for table, on in path.joins:
                joins[table] = (on, False)
                if table is path.key.table:
                    break
        source: Expression = self.root
        for table, (on, outer) in joins.items():
            source = source.join(table, on, isouter=outer)
        known = [(self.paths[name].key if name in self.paths else self.column(name)).is_not(None) for name in keys]
        return sa.select(self.root.c.uuid.label("uuid_"), *chosen).select_from(source).where(*known)


def census(relation: Relation, column: str) -> sa.Select | None:
    """How many objects of any kind have each value of a key, counted in the other table that has the key; ``None`` if
    the key is in no other table."""
    path = relation.paths.get(column)
    if path is None or path.key.table is relation.root or path.key.table is not path.joins[0][0]:
        return None
    statement = sa.select(sa.func.count(), path.key)
    if "role" in path.key.table.c:
        statement = statement.where(path.key.table.c.role == column)
    return statement.group_by(path.key).order_by(path.key)


def sites_called(name: str) -> sa.CompoundSelect:
    """The uuids of the sites that a name means: that of the site, and that of the host, with this name."""
    site, host = schema.SITE, schema.HOST
    own = sa.select(site.c.uuid).where(site.c.name == name)
    return own.union_all(sa.select(host.c.site).where(host.c.name == name, host.c.site.is_not(None)))


def latencies(site: str) -> sa.Select:
    """Latencies in seconds between this site and others, measured in either direction, newest first.

    :param site: uuid.
    """
    sample = schema.SAMPLE
    measured = sa.select(sample.c.object, sample.c.peer, sample.c.value).where(
        sample.c.metric == "latency", sample.c.peer.is_not(None)
    )
    return measured.where(sa.or_(sample.c.object == site, sample.c.peer == site)).order_by(
        sample.c.time.desc(), sample.c.id.desc()
    )
