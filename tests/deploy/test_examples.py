"""The examples of deployments: valid for Kubernetes, GitHub Actions and Compose, with commands that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from support.commands import ROOT, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KUBERNETES = sorted((ROOT / "examples/kubernetes").glob("*.yaml"))
WORKFLOW = ROOT / "examples/github-actions/database.yml"
IMAGE = "syntegra-db:"
UNREACHABLE = "postgresql://user:secret@127.0.0.1:1/nowhere"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def pods() -> Iterator[dict[str, Any]]:
    """Yield the specification of the pods of each manifest."""
    for path in KUBERNETES:
        yield load(path)["spec"]["template"]["spec"]


def containers() -> Iterator[dict[str, Any]]:
    for pod in pods():
        yield from [*pod["initContainers"], *pod["containers"]]


def commands() -> set[tuple[str, ...]]:
    """Return the commands of the examples, each with its arguments."""
    of_pods = {tuple(container["args"]) for container in containers() if container["image"].startswith(IMAGE)}
    steps = [step.get("run", "") for step in load(WORKFLOW)["jobs"]["migrate"]["steps"]]
    of_steps = {tuple(step.split()[1:]) for step in steps if step.startswith("syntegra-db ")}
    files = [ROOT / "docker-compose.yml", ROOT / "examples/compose/service.yml"]
    services = [service for file in files for service in load(file)["services"].values()]
    return of_pods | of_steps | {tuple(service["command"]) for service in services if "command" in service}


def test_manifests_are_valid_for_kubernetes() -> None:
    result = run("kubernetes-validate", "--strict", *map(str, KUBERNETES))
    assert result.returncode == 0, result.stdout + result.stderr


def test_validator_rejects_an_unknown_field(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(KUBERNETES[0].read_text(encoding="utf-8").replace("runAsUser", "runAsRoot"), encoding="utf-8")
    assert run("kubernetes-validate", "--strict", str(broken)).returncode == 1


def test_workflow_is_valid_for_github_actions() -> None:
    result = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("file", ["docker-compose.yml", "examples/compose/service.yml"])
def test_compose_file_is_valid(file: str) -> None:
    result = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / file))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("command", sorted(commands()), ids=" ".join)
def test_command_of_an_example_reaches_the_database(command: tuple[str, ...]) -> None:
    """A wrong option would end with 2; the limits of `wait` are made short."""
    arguments = re.sub(r"--timeout \d+", "--timeout 0", " ".join(command)).split()
    result = run("syntegra-db", *arguments, url=UNREACHABLE)
    assert result.returncode == (2 if command == ("verify",) else 5), result.stderr
    assert "No PostgreSQL server answers" in result.stderr + result.stdout


def test_pods_run_without_root_and_without_writing() -> None:
    user = re.search(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user is not None
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == int(user[1])
        assert pod["enableServiceLinks"] is False
    for container in containers():
        context = container["securityContext"]
        assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_pods_read_the_url_from_a_secret_of_their_role() -> None:
    secrets = []
    for container in containers():
        [variable] = container["env"]
        assert (variable["name"], "value" in variable) == ("DATABASE_URL", False)
        secrets.append(variable["valueFrom"]["secretKeyRef"]["name"])
    assert set(secrets) == {"syntegra-database-owner", "syntegra-database-service"}


def test_service_of_compose_waits_for_the_migration() -> None:
    service = load(ROOT / "examples/compose/service.yml")["services"]["service"]
    assert service["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    migrate = load(ROOT / "docker-compose.yml")["services"]["migrate"]
    assert migrate["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert migrate["profiles"] == ["migrate"]


def test_build_context_has_only_what_the_image_copies() -> None:
    """No settings, backups or data: everything else is left out."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    kept = {line[1:] for line in ignored if line.startswith("!")}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    assert {name for line in copies for name in line.split()} == {
        ".wheel[s]" if name == ".wheels" else name for name in kept
    }
