"""A PostgreSQL server that Docker Compose runs for a copy of this checkout."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from support.operator_guide import Checkout, Outcome
from support.servers import Database
from syntegra_db.settings import DRIVER

if TYPE_CHECKING:
    import pytest

# Characters that are special in Compose, python-dotenv, make, a shell or a URL; quoted as .env.example describes.
PASSWORD = "p%40@:/ w'or$d#\"1"  # noqa: S105  of a server that lives for one test run
QUOTED_PASSWORD = "'p%40@:/ w\\'or$d#\"1'"  # noqa: S105


@dataclass(frozen=True)
class Compose:
    """The server of one checkout, and the command that runs Compose: docker-compose or docker compose."""

    program: str
    checkout: Checkout
    port: int

    def run(self, command: str, **variables: str) -> Outcome:
        """Run a command of the guide, with this program in place of docker-compose."""
        return self.checkout.run(command.replace("docker-compose", self.program), **variables)

    def succeed(self, command: str, **variables: str) -> str:
        """Run a command as `run` does, assert that it exits with 0, and return its output."""
        return self.checkout.succeed(command.replace("docker-compose", self.program), **variables)

    def psql(self, database: str, *statements: str) -> None:
        """Run statements as an administrator, each in a separate transaction."""
        options = " ".join(f'-c "{statement}"' for statement in statements)
        self.succeed(f"docker-compose exec -T postgres psql -U syntegra_user -d {database} {options}")

    @property
    def database(self) -> Database:
        """Return the database, as a program on this machine connects to it."""
        return Database(URL.create(DRIVER, "syntegra_user", PASSWORD, "127.0.0.1", self.port, "syntegra_db"))


def compose_programs() -> list[str]:
    """Return the Compose programs of this machine: docker-compose as in the guide, docker compose, or both."""
    installed = [shutil.which("docker-compose") and "docker-compose"]
    if shutil.which("docker"):
        version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        installed.append("docker compose" if version.returncode == 0 else None)
    return [program for program in installed if program] or ["docker-compose"]


def new_compose(program: str, tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """Return a new checkout with a free port; its server is not started."""
    port = free_port()
    checkout = Checkout(
        tmp_path_factory.mktemp("checkout"),
        {"COMPOSE_PROJECT_NAME": f"syntegra-db-test-{port}", "COMPOSE": program},
    )
    return Compose(program, checkout, port)


def wait_until_healthy(compose: Compose) -> None:
    """Wait until the container is healthy, for at most 60 s."""
    command = "docker inspect --format '{{.State.Health.Status}}' $(docker-compose ps --quiet postgres)"
    deadline = time.monotonic() + 60
    while (status := compose.succeed(command).strip()) != "healthy":
        assert time.monotonic() < deadline, status
        time.sleep(0.5)


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
