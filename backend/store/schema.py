"""Brings the schema of a database up to date, or refuses and explains why."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, inspect

from backend.core.errors.surroundings import StoreUnavailable

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def newest_revision() -> str:
    """Return the newest revision: the number in the file name of the newest migration script."""
    return max(path.name[1:5] for path in (MIGRATIONS / "versions").glob("r[0-9]*.py"))


def upgrade(connection: Connection, url: URL) -> None:
    """Run the missing revisions on the connection and in its transaction.

    Raises:
        StoreUnavailable: another program, or a newer version of this one, wrote the database.
    """
    # Importing Alembic takes a fifth of a second, and the usual start does not need it.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None and url.get_backend_name() == "sqlite" and inspect(connection).get_table_names():
        raise StoreUnavailable(
            f"{url.database} is a database of another program; it was left as it is",
            suggestions=("Set WAN22_HOME or WAN22_DATABASE_URL to another place.",),
        )
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreUnavailable(
            f"A newer wan22 wrote this database: its schema is {current}, "
            f"this version knows up to {scripts.get_current_head()}",
            suggestions=("Install the newer wan22 again, or start with another WAN22_HOME.",),
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
