"""How many tasks and videos there are is kept up to date, not counted: counting reads each of them."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

#: For each table of totals: the rows that it counts, when one is counted, its key, and what is summed up.
_KEPT = (
    ("task_totals", "tasks", "deleted_at", ("owner", "status"), {"tasks": "1"}),
    ("gallery_totals", "gallery", "trashed_at", ("owner",), {"videos": "1", "size_bytes": "size_bytes"}),
)


def upgrade() -> None:
    """Make the tables, count once, and let triggers count from then on."""
    op.create_table(
        "task_totals",
        sa.Column("owner", sa.String(16), primary_key=True),
        sa.Column("status", sa.String(16), primary_key=True),
        sa.Column("tasks", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "gallery_totals",
        sa.Column("owner", sa.String(16), primary_key=True),
        sa.Column("videos", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    connection = op.get_bind()
    sqlite = connection.dialect.name == "sqlite"
    for totals, table, gone, keys, sums in _KEPT:
        grouped = ", ".join(_key(one) for one in keys)
        summed = ", ".join(f"sum({one})" for one in sums.values())
        connection.exec_driver_sql(
            f"INSERT INTO {totals} ({', '.join((*keys, *sums))}) SELECT {grouped}, {summed} FROM {table} "  # noqa: S608
            f"WHERE {gone} IS NULL GROUP BY {grouped}"
        )
        for statement in (_in_sqlite if sqlite else _in_postgresql)(totals, table, gone, keys, sums):
            connection.exec_driver_sql(statement)


def _key(column: str, row: str = "") -> str:
    """Return a column of the key: no owner is an empty one, because a key has no nulls."""
    return f"coalesce({row}owner, '')" if column == "owner" else f"{row}{column}"


def _in_sqlite(totals: str, table: str, gone: str, keys: tuple[str, ...], sums: dict[str, str]) -> list[str]:
    """Return triggers for each row: SQLite has no others."""

    def value(summed: str, row: str) -> str:
        return summed if summed == "1" else f"{row}{summed}"

    def add(sign: str, row: str) -> str:
        values = [*(_key(one, row) for one in keys), *(f"{sign}{value(one, row)}" for one in sums.values())]
        more = ", ".join(f"{one} = {one} + excluded.{one}" for one in sums)
        return (
            f"INSERT INTO {totals} ({', '.join((*keys, *sums))}) SELECT {', '.join(values)} WHERE {row}{gone} IS NULL "
            f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {more};"
        )

    watched = [gone, *keys, *(one for one in sums.values() if one != "1")]
    changed = " OR ".join(f"old.{one} IS NOT new.{one}" for one in watched)
    return [
        f"CREATE TRIGGER {totals}_insert AFTER INSERT ON {table} BEGIN {add('', 'new.')} END",
        f"CREATE TRIGGER {totals}_update AFTER UPDATE OF {', '.join(watched)} ON {table} WHEN {changed} "
        f"BEGIN {add('-', 'old.')} {add('', 'new.')} END",
        f"CREATE TRIGGER {totals}_delete AFTER DELETE ON {table} BEGIN {add('-', 'old.')} END",
    ]


def _in_postgresql(totals: str, table: str, gone: str, keys: tuple[str, ...], sums: dict[str, str]) -> list[str]:
    """Return triggers for each statement that adds or deletes rows, and for each row that is changed.

    A statement that adds a million rows would change one total a million times otherwise.
    """
    grouped, more = ", ".join(_key(one) for one in keys), ", ".join(f"{one} = t.{one} + excluded.{one}" for one in sums)

    def add(rows: str, sign: str) -> str:
        summed = ", ".join(f"{sign}sum({one})" for one in sums.values())
        return (
            f"INSERT INTO {totals} AS t ({', '.join((*keys, *sums))}) SELECT {grouped}, {summed} FROM {rows} "  # noqa: S608
            f"WHERE {gone} IS NULL GROUP BY {grouped} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {more};"
        )

    def function(name: str, body: str) -> str:
        return (
            f"CREATE FUNCTION {totals}_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
        )

    watched = [gone, *keys, *(one for one in sums.values() if one != "1")]
    changed = " OR ".join(f"OLD.{one} IS DISTINCT FROM NEW.{one}" for one in watched)
    of_old, of_new = f"(SELECT OLD.*) AS {table}", f"(SELECT NEW.*) AS {table}"
    return [
        function("added", add("new_rows", "")),
        function("deleted", add("old_rows", "-")),
        function("changed", f"{add(of_old, '-')} {add(of_new, '')}"),
        f"CREATE TRIGGER {totals}_insert AFTER INSERT ON {table} REFERENCING NEW TABLE AS new_rows "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {totals}_added()",
        f"CREATE TRIGGER {totals}_delete AFTER DELETE ON {table} REFERENCING OLD TABLE AS old_rows "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {totals}_deleted()",
        f"CREATE TRIGGER {totals}_update AFTER UPDATE OF {', '.join(watched)} ON {table} "
        f"FOR EACH ROW WHEN ({changed}) EXECUTE FUNCTION {totals}_changed()",
    ]
