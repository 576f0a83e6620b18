"""The commands of docs/es/migraciones.md, and the Makefile behind them: through Compose, and on the embedded server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import document
import pytest
from document import Checkout
from sqlalchemy.engine import URL

from support.commands import ROOT
from support.servers import Database
from syntegra_db.revisions import head_revision
from syntegra_db.settings import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

# What Compose, python-dotenv, make, a shell or a URL could take for its own, quoted as .env.example says.
PASSWORD = "p%40@:/ w'or$d#\"1"  # noqa: S105  of a server that lives for one test run
QUOTED_PASSWORD = "'p%40@:/ w\\'or$d#\"1'"  # noqa: S105
TABLES = (
    "data_sources",
    "processed_data",
    "kpi_summary",
    "text_summary",
    "trend_signals",
    "clusters",
    "anomaly_log",
)
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


@dataclass(frozen=True)
class Compose:
    """A server that Compose runs for one checkout, and how Compose is spelled."""

    spelling: str
    checkout: Checkout
    port: int

    def spelled(self, command: str) -> str:
        """A command of the document for this spelling; for docker-compose, its very text."""
        return command.replace("docker-compose", self.spelling)

    def run(self, command: str, **variables: str) -> document.Outcome:
        return self.checkout.run(self.spelled(command), **variables)

    def succeed(self, command: str, **variables: str) -> str:
        return self.checkout.succeed(self.spelled(command), **variables)

    def psql(self, database: str, *statements: str) -> None:
        """Run statements as an administrator, each in a transaction of its own."""
        options = " ".join(f'-c "{statement}"' for statement in statements)
        self.succeed(f"docker-compose exec -T postgres psql -U syntegra_user -d {database} {options}")

    @property
    def database(self) -> Database:
        """The database as a program on this machine reaches it."""
        return Database(
            URL.create(DRIVER, "syntegra_user", PASSWORD, "127.0.0.1", self.port, "syntegra_db"),
        )


def spellings() -> list[str]:
    """How Compose is spelled on this machine: the document's own way, the newer one, or both."""
    found = [shutil.which("docker-compose") and "docker-compose"]
    if shutil.which("docker"):
        version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        found.append("docker compose" if version.returncode == 0 else None)
    return [spelling for spelling in found if spelling] or ["docker-compose"]


@pytest.fixture(scope="module", params=spellings())
def server_of_compose(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
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
def compose(server_of_compose: Compose) -> Compose:
    """The server, with the database as it is after the first start: empty."""
    server_of_compose.psql(
        "postgres",
        "DROP DATABASE IF EXISTS syntegra_db WITH (FORCE)",
        "DROP ROLE IF EXISTS application",
        "CREATE DATABASE syntegra_db",
    )
    return server_of_compose


def new_compose(spelling: str, tmp_path_factory: pytest.TempPathFactory) -> Compose:
    port = free_port()
    checkout = Checkout(
        tmp_path_factory.mktemp("checkout"),
        {"COMPOSE_PROJECT_NAME": f"syntegra-db-test-{port}", "COMPOSE": spelling},
    )
    return Compose(spelling, checkout, port)


@pytest.mark.parametrize("command", [*document.ALL, *document.ADDED])
def test_the_document_has_the_command(command: str) -> None:
    text = (ROOT / "docs" / "es" / "migraciones.md").read_text(encoding="utf-8")
    assert command in [line.strip() for line in text.splitlines()]


@pytest.mark.docker
@pytest.mark.parametrize("command", document.MIGRATE)
def test_migrate(command: str, compose: Compose) -> None:
    if command.startswith("cat"):
        for file in ("001_create_data_sources.sql", "002_create_processed_data.sql"):
            compose.succeed(f"cat migrations/{file} | {document.PSQL_ON_STDIN}")
    compose.succeed(command)
    assert revision(compose.database) == "003"
    compose.succeed("make verify-analytics-tables")


@pytest.mark.docker
@pytest.mark.parametrize("command", document.VERIFY)
def test_verify(command: str, compose: Compose) -> None:
    compose.succeed("make migrate-003")
    assert compose.succeed(command).endswith("The analytics tables match revision 003.\n")
    compose.database.execute("DROP INDEX idx_clusters_features")
    outcome = compose.run(command)
    assert outcome.status != 0
    assert "MISSING    clusters       index       idx_clusters_features" in outcome.output
    assert "ERROR:  the analytics tables do not match revision 003" in outcome.output


@pytest.mark.docker
@pytest.mark.parametrize("command", document.ROLLBACK)
def test_rollback(command: str, compose: Compose) -> None:
    compose.succeed("make migrate-003")
    compose.database.execute("INSERT INTO data_sources (client_id, name, type) VALUES (7, 'caja', 'simple_csv')")
    compose.succeed(command)
    assert revision(compose.database) == "002"
    assert tables(compose.database) == {"alembic_version", "data_sources", "processed_data"}
    assert compose.database.query("SELECT count(*) FROM data_sources") == [(1,)]


@pytest.mark.docker
def test_the_extension_is_missing(compose: Compose) -> None:
    """The server's owner is a superuser, for whom 003 makes the extension; an application's role is none."""
    compose.psql(
        "syntegra_db",
        "CREATE ROLE application LOGIN PASSWORD 'secret'",
        "ALTER DATABASE syntegra_db OWNER TO application",
    )
    url = f"postgresql://application:secret@127.0.0.1:{compose.port}/syntegra_db"
    assert "(0 rows)" in compose.succeed(f'{document.PSQL} -c "{document.EXTENSION_QUERY}"')
    outcome = compose.run("make migrate-003", DATABASE_URL=url)
    assert outcome.status != 0
    assert "role application may not create the extension vector" in outcome.output
    assert "CREATE EXTENSION vector;" in outcome.output
    assert "Traceback" not in outcome.output
    assert revision(compose.database) == "002"
    outcome = compose.run(f"{document.PSQL} -c \"SELECT '[1, 2]'::vector\"")
    assert 'type "vector" does not exist' in outcome.output

    compose.succeed(document.CREATE_EXTENSION)
    compose.succeed(f'{document.PSQL} -c "{document.EXTENSION_STATEMENT}"')
    assert "(1 row)" in compose.succeed(f'{document.PSQL} -c "{document.EXTENSION_QUERY}"')
    compose.succeed("make migrate-003", DATABASE_URL=url)
    assert revision(compose.database) == "003"


@pytest.mark.docker
def test_the_tables_exist_already(compose: Compose) -> None:
    compose.succeed("make migrate-003")
    compose.database.execute(ROWS)
    outcome = compose.run(f'{document.PSQL} -c "CREATE TABLE kpi_summary (id bigint)"')
    assert 'relation "kpi_summary" already exists' in outcome.output
    outcome = compose.run(document.MIGRATE[2])
    assert outcome.status == 3
    assert "revision 003 is already applied" in outcome.output
    assert compose.database.query("SELECT count(*) FROM kpi_summary") == [(1,)]

    for command in document.RECREATE:
        compose.succeed(command)
    compose.succeed("make verify-analytics-tables")
    assert compose.database.query("SELECT count(*) FROM kpi_summary") == [(0,)]


@pytest.mark.docker
def test_list(compose: Compose) -> None:
    compose.succeed("make migrate-003")
    listed = compose.succeed(document.LIST_TABLES)
    for table in (*TABLES, "alembic_version"):
        assert f" {table} " in listed
    assert " vector " in compose.succeed(f'{document.PSQL} -c "\\dx"')


@pytest.mark.docker
def test_back_up_and_restore(compose: Compose) -> None:
    """At a terminal, docker-compose before version 2 ends each line of the dump with CR LF; psql reads it alike."""
    compose.succeed("make migrate-003")
    compose.database.execute(ROWS)
    before = contents(compose)
    compose.succeed(document.BACKUP)
    for command in document.EMPTY:
        compose.succeed(command)
    assert "ERROR" not in compose.succeed(document.RESTORE)
    assert contents(compose) == before
    compose.succeed("make verify-analytics-tables")
    compose.succeed("make rollback-003")


@pytest.mark.docker
def test_recreate_the_tables_and_keep_their_rows(compose: Compose) -> None:
    compose.succeed("make migrate-003")
    compose.database.execute(ROWS)
    before = contents(compose)
    for command in (document.SAVE_ROWS, *document.RECREATE, document.RETURN_ROWS, document.REBUILD_INDEX):
        compose.succeed(command)
    assert contents(compose) == before


@pytest.mark.docker
@pytest.mark.parametrize("spelling", spellings())
def test_make_up(spelling: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    compose = new_compose(spelling, tmp_path_factory)
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


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """A checkout without .env, where everything is on the embedded server.

    Not below pytest's own folder, which another run of pytest closes to the user that the server runs as.
    """
    checkout = Checkout(Path(tempfile.mkdtemp(prefix="syntegra-db-")))
    try:
        yield checkout
    finally:
        checkout.run("make local-stop")
        shutil.rmtree(checkout.folder)


def test_the_document_on_the_embedded_server(checkout: Checkout) -> None:
    for migrate, rollback in zip(document.MIGRATE[:2], document.ROLLBACK[:2], strict=True):
        assert "at revision 003" in checkout.succeed(migrate)
        assert "The analytics tables match revision 003." in checkout.succeed("make verify-analytics-tables")
        assert "at revision 002" in checkout.succeed(rollback)
        outcome = checkout.run("make verify-analytics-tables")
        assert outcome.status != 0
        assert "MISSING    clusters" in outcome.output


def test_scripts_from_another_folder(checkout: Checkout) -> None:
    assert "at revision 003" in checkout.succeed(f"cd / && {checkout.folder}/scripts/run_migration_003.sh")
    assert "at revision 002" in checkout.succeed(f"cd / && {checkout.folder}/scripts/rollback_migration_003.sh")


def test_make_migrate(checkout: Checkout) -> None:
    output = checkout.succeed("make migrate")
    assert f"at revision {head_revision()}" in output
    for table in TABLES:
        assert table in output
    checkout.succeed("make status")
    checkout.succeed("make verify")


def test_an_error_is_one_line_and_a_failure_of_make(checkout: Checkout) -> None:
    outcome = checkout.run("make status", DATABASE_URL="postgresql://user:secret@127.0.0.1:1/nowhere")
    assert outcome.status == 2
    error, makes_own = outcome.output.splitlines()
    assert error.startswith("Error: No PostgreSQL server answers")
    assert makes_own.startswith("make: ***")
    assert "secret" not in outcome.output


def test_make_help_lists_all_targets(checkout: Checkout) -> None:
    output = checkout.succeed("make")
    makefile = (checkout.folder / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    listed = [line.split()[0] for line in output.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(phony)


def test_an_installation_that_fails_is_tried_again(checkout: Checkout) -> None:
    folder = checkout.folder / "broken"
    broken = Checkout(folder, {"VENV": ".venv", "PYTHON": "./python"})
    python = folder / "python"
    python.write_text(
        '#!/bin/sh\nmkdir -p .venv/bin && printf "#!/bin/sh\\nexit 1\\n" > .venv/bin/pip\nchmod +x .venv/bin/pip'
    )
    python.chmod(0o755)
    for _ in range(2):
        outcome = broken.run("make status")
        assert outcome.status == 2
        assert "Creating the environment" in outcome.output
    assert not (folder / ".venv" / "installed").exists()


def wait_until_healthy(compose: Compose) -> None:
    command = "docker inspect --format '{{.State.Health.Status}}' $(docker-compose ps --quiet postgres)"
    deadline = time.monotonic() + 60
    while (status := compose.succeed(command).strip()) != "healthy":
        assert time.monotonic() < deadline, status
        time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def revision(database: Database) -> str:
    [(revision,)] = database.query("SELECT version_num FROM alembic_version")
    return str(revision)


def tables(database: Database) -> set[str]:
    return {name for (name,) in database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def contents(compose: Compose) -> list[str]:
    """What a dump that nothing came in between of says, without the lines that differ from dump to dump."""
    dump = compose.succeed("docker-compose exec -T postgres pg_dump -U syntegra_user syntegra_db")
    return [line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
