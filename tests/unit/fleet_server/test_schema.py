"""The migrations make the schema of the code, once, and for PostgreSQL too."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from fleet_server import migrate
from fleet_server.data_dir import DataDir
from fleet_server.database import sqlite_url
from fleet_server.errors import SetupError
from tests.unit.fleet_server.authority import Fleet


def test_migrations_and_tables_agree(fleet: Fleet) -> None:
    assert migrate.upgrade(fleet.data) == migrate.upgrade(fleet.data) == "0002"
    engine = create_engine(sqlite_url(fleet.data.database, driver="pysqlite"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, migrate.metadata()) == []
    engine.dispose()
    assert fleet.data.database.stat().st_mode & 0o777 == 0o600


def test_every_table_compiles_for_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
    for table in migrate.metadata().sorted_tables:
        statement = str(CreateTable(table).compile(dialect=dialect))
        assert "CREATE TABLE" in statement


def test_a_database_of_a_newer_version_is_left_alone(fleet: Fleet) -> None:
    migrate.upgrade(fleet.data)
    engine = create_engine(sqlite_url(fleet.data.database, driver="pysqlite"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SetupError, match="another version of skerry"):
        migrate.upgrade(fleet.data)


def test_a_file_that_is_no_database(fleet: Fleet) -> None:
    fleet.data.database.write_bytes(b"not a database" * 100)
    with pytest.raises(SetupError, match="is not a database"):
        migrate.upgrade(DataDir(fleet.data.root))
