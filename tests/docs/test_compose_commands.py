"""The commands of docs/es/migraciones.md, on a server that Docker Compose runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import operator_guide as guide
from support.compose import QUOTED_PASSWORD, Compose, compose_programs, new_compose, wait_until_healthy
from support.sample_rows import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database

ROWS = """
    INSERT INTO data_sources (client_id, name, type, config_json)
    VALUES (7, 'Caja «Ñandú»', 'simple_csv', '{"ruta": "C:\\\\datos\\tab"}'),
      (8, E'dos\nlíneas\r\ny\ttab', 'api_rest', '{}');
    INSERT INTO processed_data (client_id, source_id, source_type, data) VALUES (7, 1, 'retail', '{"total": 12.50}');
    INSERT INTO kpi_summary (client_id, source_id, kpi_name, kpi_value, period_start, period_end)
    VALUES (7, 1, 'avg_ticket', 123456789.123456789, '2024-01-01', '2024-01-31 12:00:00.123456+00');
    INSERT INTO text_summary (client_id, source_id, text_field, sentiment_score, keywords, embedding)
    SELECT 7, 1, E'El envío llegó tarde…\n\\\\. "¡nunca más!"', random(), '["envío", "\\u00f1"]',
      (SELECT array_agg(sin(number * position)) FROM generate_series(1, 384) AS position)::vector
    FROM generate_series(1, 50) AS number;
    INSERT INTO trend_signals (sector, term, period_start, period_end, status)
    VALUES ('hostelería', 'sin gluten', '2024-01-01', '2024-01-31', 'emergent');
    INSERT INTO clusters (client_id, cluster_id, features_json, silhouette_score)
    VALUES (7, 1, '{"a": null}', 0.1 + 0.2);
    INSERT INTO anomaly_log (client_id, kpi_name, value, severity) VALUES (8, 'sales_mom', -1e-20, 'critical');
    DELETE FROM text_summary WHERE id > 48
"""


@pytest.fixture(scope="module", params=compose_programs())
def compose_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    compose = new_compose(request.param, tmp_path_factory)
    settings = f"POSTGRES_PORT={compose.port}\nPOSTGRES_PASSWORD={QUOTED_PASSWORD}\n"
    (compose.checkout.folder / ".env").write_text(settings, encoding="utf-8")
    try:
        compose.succeed("docker-compose up -d")
        wait_until_healthy(compose)
        yield compose
    finally:
        compose.run("docker-compose down --volumes")


@pytest.fixture
def compose(compose_server: Compose) -> Compose:
    """The server with an empty database, as after its first start."""
    compose_server.psql(
        "postgres",
        "DROP DATABASE IF EXISTS syntegra_db WITH (FORCE)",
        "DROP ROLE IF EXISTS application",
        "CREATE DATABASE syntegra_db",
    )
    return compose_server


@pytest.mark.docker
@pytest.mark.parametrize("command", guide.MIGRATE)
def test_migrate_command_reaches_003(command: str, compose: Compose) -> None:
    if command.startswith("cat"):
        for file in ("001_create_data_sources.sql", "002_create_processed_data.sql"):
            compose.succeed(f"cat migrations/{file} | {guide.PSQL_ON_STDIN}")
    compose.succeed(command)
    assert revision(compose.database) == "003"
    compose.succeed("make verify-analytics-tables")


@pytest.mark.docker
@pytest.mark.parametrize("command", guide.VERIFY)
def test_verify_command_with_missing_index_fails(command: str, compose: Compose) -> None:
    compose.succeed("make migrate-003")
    assert compose.succeed(command).endswith("The analytics tables match revision 003.\n")
    compose.database.execute("DROP INDEX idx_clusters_features")
    outcome = compose.run(command)
    assert outcome.status != 0
    assert "MISSING    clusters       index       idx_clusters_features" in outcome.output
    assert "ERROR:  the analytics tables do not match revision 003" in outcome.output


@pytest.mark.docker
@pytest.mark.parametrize("command", guide.ROLLBACK)
def test_rollback_command_reaches_002_and_keeps_data_sources(command: str, compose: Compose) -> None:
    compose.succeed("make migrate-003")
    compose.database.execute("INSERT INTO data_sources (client_id, name, type) VALUES (7, 'caja', 'simple_csv')")
    compose.succeed(command)
    assert revision(compose.database) == "002"
    assert tables(compose.database) == {"alembic_version", "data_sources", "processed_data"}
    assert compose.database.query("SELECT count(*) FROM data_sources") == [(1,)]


@pytest.mark.docker
def test_migrate_without_extension_prints_statement_for_administrator(compose: Compose) -> None:
    # The default role is a superuser and may create the extension; the role of an application may not.
    compose.psql(
        "syntegra_db",
        "CREATE ROLE application LOGIN PASSWORD 'secret'",
        "ALTER DATABASE syntegra_db OWNER TO application",
    )
    url = f"postgresql://application:secret@127.0.0.1:{compose.port}/syntegra_db"
    assert "(0 rows)" in compose.succeed(f'{guide.PSQL} -c "{guide.EXTENSION_QUERY}"')
    outcome = compose.run("make migrate-003", DATABASE_URL=url)
    assert outcome.status != 0
    assert "role application may not create the extension vector" in outcome.output
    assert "CREATE EXTENSION vector;" in outcome.output
    assert "Traceback" not in outcome.output
    assert revision(compose.database) == "002"
    outcome = compose.run(f"{guide.PSQL} -c \"SELECT '[1, 2]'::vector\"")
    assert 'type "vector" does not exist' in outcome.output

    compose.succeed(guide.CREATE_EXTENSION)
    compose.succeed(f'{guide.PSQL} -c "{guide.EXTENSION_STATEMENT}"')
    assert "(1 row)" in compose.succeed(f'{guide.PSQL} -c "{guide.EXTENSION_QUERY}"')
    compose.succeed("make migrate-003", DATABASE_URL=url)
    assert revision(compose.database) == "003"


@pytest.mark.docker
def test_migrate_with_existing_tables_keeps_their_rows(compose: Compose) -> None:
    compose.succeed("make migrate-003")
    compose.database.execute(ROWS)
    outcome = compose.run(f'{guide.PSQL} -c "CREATE TABLE kpi_summary (id bigint)"')
    assert 'relation "kpi_summary" already exists' in outcome.output
    outcome = compose.run(guide.MIGRATE[2])
    assert outcome.status == 3
    assert "revision 003 is already applied" in outcome.output
    assert compose.database.query("SELECT count(*) FROM kpi_summary") == [(1,)]

    for command in guide.RECREATE_TABLES:
        compose.succeed(command)
    compose.succeed("make verify-analytics-tables")
    assert compose.database.query("SELECT count(*) FROM kpi_summary") == [(0,)]


@pytest.mark.docker
def test_list_commands_show_tables_and_extension(compose: Compose) -> None:
    compose.succeed("make migrate-003")
    listed = compose.succeed(guide.LIST_TABLES)
    for table in (*TABLES, "alembic_version"):
        assert f" {table} " in listed
    assert " vector " in compose.succeed(f'{guide.PSQL} -c "\\dx"')


@pytest.mark.docker
def test_restored_dump_has_same_contents(compose: Compose) -> None:
    # On a terminal, docker-compose 1 ends each line of the dump with CR LF; psql accepts both.
    compose.succeed("make migrate-003")
    compose.database.execute(ROWS)
    before = contents(compose)
    compose.succeed(guide.BACKUP)
    for command in guide.RECREATE_DATABASE:
        compose.succeed(command)
    assert "ERROR" not in compose.succeed(guide.RESTORE)
    assert contents(compose) == before
    compose.succeed("make verify-analytics-tables")
    compose.succeed("make rollback-003")


@pytest.mark.docker
def test_recreated_tables_with_restored_rows_have_same_contents(compose: Compose) -> None:
    compose.succeed("make migrate-003")
    compose.database.execute(ROWS)
    before = contents(compose)
    for command in (guide.SAVE_ROWS_003, *guide.RECREATE_TABLES, guide.RESTORE_ROWS_003, guide.REINDEX):
        compose.succeed(command)
    assert contents(compose) == before


@pytest.mark.docker
@pytest.mark.parametrize("program", compose_programs())
def test_make_up_without_env_file_creates_password_and_server(
    program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compose = new_compose(program, tmp_path_factory)
    settings = compose.checkout.folder / ".env"
    port = {"POSTGRES_PORT": str(compose.port)}
    try:
        outcome = compose.run("docker-compose up -d", **port)
        assert outcome.status != 0
        assert "cp .env.example .env" in outcome.output
        output = compose.succeed("make up", **port)
        assert settings.stat().st_mode & 0o777 == 0o600
        password = settings.read_text(encoding="utf-8").rpartition("POSTGRES_PASSWORD=")[2].strip()
        assert len(password) == 48
        assert password not in output
        assert compose.succeed("docker-compose port postgres 5432", **port).strip() == f"127.0.0.1:{compose.port}"
        assert compose.run("docker-compose exec postgres touch /scripts/new", **port).status != 0
        compose.succeed("make migrate-003", **port)
        compose.succeed("make up", **port)
        assert password in settings.read_text(encoding="utf-8")
        compose.succeed("make down", **port)
        compose.succeed("make up", **port)
        compose.succeed("make verify-analytics-tables", **port)
        assert "syntegra_db" in compose.succeed("echo 'SELECT current_database();' | make psql", **port)
    finally:
        compose.run("docker-compose down --volumes", POSTGRES_PASSWORD="any", **port)


def revision(database: Database) -> str:
    [(revision,)] = database.query("SELECT version_num FROM alembic_version")
    return str(revision)


def tables(database: Database) -> set[str]:
    return {name for (name,) in database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def contents(compose: Compose) -> list[str]:
    """Return the lines of a dump, without those that differ in every dump."""
    dump = compose.succeed("docker-compose exec -T postgres pg_dump -U syntegra_user syntegra_db")
    return [line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
