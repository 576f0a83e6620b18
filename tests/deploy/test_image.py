"""The image of `syntegra-db`, built from a base of Debian's packages, on a server that Docker Compose runs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.commands import PROGRAMS, ROOT
from support.compose import QUOTED_PASSWORD, Compose, compose_programs, new_compose
from support.revisions import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.docker

# Another base: a name in a registry, such as the default of the Dockerfile.
BASE_IMAGE = "SYNTEGRA_TEST_BASE_IMAGE"
IMAGE = "syntegra-db-test"
SERVICE = "docker-compose -f docker-compose.yml -f examples/compose/service.yml --profile migrate"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Build the image; its layers are those of the last run if nothing has changed."""
    base = os.environ.get(BASE_IMAGE, "syntegra-db-base")
    if BASE_IMAGE not in os.environ:
        subprocess.run([str(ROOT / ".ci/base-image"), base], check=True)
    make = ["make", "image", f"BASE_IMAGE={base}", f"IMAGE={IMAGE}", f"VENV={PROGRAMS.parent}"]
    built = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    yield IMAGE
    docker("image", "rm", IMAGE)


@pytest.fixture(scope="module")
def compose(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    compose = new_compose(compose_programs()[0], tmp_path_factory)
    settings = f"POSTGRES_PORT={compose.port}\nPOSTGRES_PASSWORD={QUOTED_PASSWORD}\nSYNTEGRA_IMAGE={image}\n"
    (compose.checkout.folder / ".env").write_text(settings, encoding="utf-8")
    try:
        yield compose
    finally:
        compose.run(f"{SERVICE} down --volumes")


def docker(*arguments: str) -> str:
    """Run Docker, and return its output."""
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_image_runs_as_another_user_without_pip_and_with_the_client_of_18(image: str) -> None:
    [inspected] = json.loads(docker("image", "inspect", image))
    config = inspected["Config"]
    assert (config["User"], config["Entrypoint"]) == ("10001", ["syntegra-db"])
    assert config["Labels"]["org.opencontainers.image.title"] == "syntegra-db"
    script = "id -u; pg_dump --version; python3 -m pip --version || true; ls /wheels /source /etc/pip.conf || true"
    output = docker("run", "--rm", "--read-only", "--entrypoint", "sh", image, "-c", script)
    user, client, *rest = output.splitlines()
    assert (user, client.split()[2].partition(".")[0], rest) == ("10001", "18", [])


def test_image_has_no_settings_of_the_build(image: str) -> None:
    """Neither an index with credentials, nor a password, nor a file of the checkout that the wheel does not need."""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    [inspected] = json.loads(docker("image", "inspect", image))
    variables = {line.partition("=")[0] for line in inspected["Config"]["Env"]}
    assert "://" not in history
    assert {"PIP_NO_INDEX", "PIP_INDEX_URL", "DATABASE_URL", "POSTGRES_PASSWORD"}.isdisjoint(variables)
    search = ("--user", "0", "--entrypoint", "find", image, "/", "-xdev", "-name", ".env", "-o", "-name", "*.dump")
    files = docker("run", "--rm", *search)
    assert not files


def test_up_without_the_profile_starts_only_postgresql(compose: Compose) -> None:
    compose.succeed("make up")
    assert len(compose.succeed(f"{SERVICE} ps --all --quiet").split()) == 1
    assert compose.succeed("docker-compose ps --quiet postgres")


def test_service_starts_after_the_migration(compose: Compose) -> None:
    compose.succeed(f"{SERVICE} up -d service")
    container = compose.succeed(f"{SERVICE} ps --all --quiet service").strip()
    assert docker("wait", container).strip() == "0"
    assert f"is at revision {HEAD}" in docker("logs", container)
    assert compose.database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_backup_and_rollback_of_the_image_need_only_the_volume(compose: Compose) -> None:
    """With a read-only root file system, backups/ is in a volume."""
    compose.succeed(f"{SERVICE} run --rm migrate upgrade head")
    compose.database.execute("INSERT INTO data_sources (client_id, name, type) VALUES (7, 'caja', 'simple_csv')")
    volume = compose.checkout.variables["COMPOSE_PROJECT_NAME"]
    run = f"{SERVICE} run --rm --volume {volume}:/backups migrate"
    try:
        assert "Saved 1 row" in compose.succeed(f"{run} rollback 002")
        assert compose.database.query("SELECT version_num FROM alembic_version") == [("002",)]
        output = compose.succeed(f"{run} backups")
        file = next(word for word in output.split() if word.endswith(".dump"))
        compose.succeed(f"{run} restore --replace backups/{file.rpartition('/')[2]}")
    finally:
        compose.run(f"docker volume rm {volume}")
    assert compose.database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert compose.database.query("SELECT client_id FROM data_sources") == [(7,)]
