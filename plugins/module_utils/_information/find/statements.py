# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the columns that a question names to SQL: conditions, keys, and what is shown. Builds statements, runs none."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.conditions import HOSTS, Condition
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

Expression = t.Any

_OPERATORS: dict[str, t.Callable[[Expression, t.Sequence[t.Any]], Expression]] = {
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
    """A column that lies in another table: from the object through ``joins`` to ``column``; ``key`` tells the same and
    is cheaper.

    ``start`` is the column that holds the object's uuid.
    """

    start: Expression
    joins: tuple[tuple[Expression, Expression], ...]  # table, on
    column: Expression
    key: Expression


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
    """What a provider can still promise: the lesser of what is free and of what isn't allocated, less what is held for
    futures and reserved now for no machine in particular. Whatever is unknown makes it unknown."""
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
    """One kind of object as a relation whose columns are those of :data:`conditions.COLUMNS`.

    :param include: as in the question; ``None`` is whatever exists.
    :param sites: uuids of the sites of its scope, or ``None``.
    :param missing: whether machines that vanished are among those that exist.
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
        """A column of the object's own table."""
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
        """The condition as SQL. One on another table asks whether there is such a row: a host on two networks is on
        each of them."""
        test = _OPERATORS[condition.operator]
        path = self.paths.get(condition.column)
        if path is None:
            return test(self.column(condition.column), condition.values)
        if condition.operator == "unknown":
            return ~self._exists(path, path.column.is_not(None))
        return self._exists(path, test(path.column, condition.values))

    def _exists(self, path: Path, test: Expression) -> Expression:
        """Uncorrelated, so that it is found once and not for each row."""
        first, dummy = path.joins[0]
        if path.start.table is self.root:  # a key of the object's own table
            return path.start.in_(sa.select(first.c.uuid).where(test))
        inner = sa.select(path.start).select_from(first)
        for table, on in path.joins[1:]:
            inner = inner.join(table, on)
        # The first join's own condition holds by ``in``, but for the role that it may name.
        if "role" in first.c:
            inner = inner.where(first.c.role == ("image" if first.name == "made_from" else "provider"))
        return self.root.c.uuid.in_(inner.where(test))

    def natural(self, asked: t.Collection[str]) -> list[Expression]:
        """What exists, unless the question includes something else: the conditions on an object's nature.

        :param asked: the columns that conditions name; who asks for what is missing gets it.
        """
        if self.kind not in HOSTS:
            return []
        host = self.root
        tests = []
        if (
            self.kind == "machine"
        ):  # most hosts are machines: not by the index, which SQLite would prefer to that of a network
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
        """All that an object must satisfy by itself."""
        tests = [*map(self.condition, where), *self.natural({condition.column for condition in where})]
        if self.sites is not None:
            tests.append((self.root.c.uuid if self.kind == "site" else self.root.c.site).in_(sorted(self.sites)))
        return tests

    def select(self, columns: t.Sequence[str], *, keys: t.Sequence[str] = ()) -> sa.Select[t.Any]:
        """The object's uuid, then ``columns`` as they are shown, then ``keys`` as they are cheapest; objects without a
        key are left out."""
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
            for table, on in path.joins if path and path.key.table is not self.root else ():
                joins[table] = (on, False)
                if table is path.key.table:
                    break
        source = self.root
        for table, (on, outer) in joins.items():
            source = source.join(table, on, isouter=outer)
        known = [(self.paths[name].key if name in self.paths else self.column(name)).is_not(None) for name in keys]
        return sa.select(self.root.c.uuid.label("uuid_"), *chosen).select_from(source).where(*known)


def census(relation: Relation, column: str) -> sa.Select[t.Any] | None:
    """How many objects of any kind have each value of a key that lies in another table, from that table alone; ``None``
    if it doesn't."""
    path = relation.paths.get(column)
    if path is None or path.key.table is relation.root or path.key.table is not path.joins[0][0]:
        return None
    statement = sa.select(sa.func.count(), path.key)
    if "role" in path.key.table.c:
        statement = statement.where(path.key.table.c.role == column)
    return statement.group_by(path.key).order_by(path.key)


def sites_called(name: str) -> sa.Select[t.Any]:
    """The site that a name means: its own, or that of a host."""
    site, host = schema.SITE, schema.HOST
    own = sa.select(site.c.uuid).where(site.c.name == name)
    return own.union_all(sa.select(host.c.site).where(host.c.name == name, host.c.site.is_not(None)))


def latencies(site: str) -> sa.Select[t.Any]:
    """The latencies in seconds that were measured between this site and others, either way, newest first."""
    sample = schema.SAMPLE
    measured = sa.select(sample.c.object, sample.c.peer, sample.c.value).where(
        sample.c.metric == "latency", sample.c.peer.is_not(None)
    )
    return measured.where(sa.or_(sample.c.object == site, sample.c.peer == site)).order_by(
        sample.c.time.desc(), sample.c.id.desc()
    )
