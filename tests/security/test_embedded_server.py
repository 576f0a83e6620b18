"""The embedded server serves the user who started it and root, and changes nothing outside its folder."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import PROGRAMS, run, succeed
from syntegra_db import embedded
from syntegra_db.connections import conninfo
from syntegra_db.embedded import _folders, _programs
from syntegra_db.errors import EmbeddedServerError
from syntegra_db.settings import database_url, parse_url, socket_directory_name

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user"),
]

OTHER_USER = "daemon"
SETPRIV = ("setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups")
LONG = "d" * 60 + "/" + "e" * 40
AWKWARD = [
    "$(touch executed)",
    "`touch executed`",
    "a; touch executed",
    'a" touch executed "',
    "it's",
    "a b",
    "100%",
    "a%20b",
    "%2e%2e",
    "ñandú",
    "a,b",
    "a:5432",
    "a@b",
    "back\\slash",
    "new\nline",
    "-D",
    "*",
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all users may enter, so only the server protects itself."""
    path = Path(tempfile.mkdtemp(prefix="sdb-"))
    path.chmod(0o755)
    yield path
    for local in path.rglob(".postgres"):
        embedded.stop(local)
    shutil.rmtree(path)


def as_other_user(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # That user cannot write this run's coverage.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run([*SETPRIV, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def start_in(folder: Path) -> Path:
    """Start a server in `folder` and return the folder of its socket."""
    folder.mkdir(parents=True, exist_ok=True)
    succeed("syntegra-db", "local", "start", cwd=folder)
    url = (folder / ".postgres/url").read_text(encoding="utf-8")
    return Path(str(parse_url(url).query["host"]))


@pytest.mark.parametrize("path", ["short", LONG, "it's"])
def test_other_user_cannot_connect_or_read(folder: Path, path: str) -> None:
    sockets = start_in(folder / path)
    data = folder / path / ".postgres/18"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (data, sockets)} == {0o700}
    psql = (embedded.bin_directory() / "psql", "-h", sockets, "-d", "postgres", "-Atc", "SELECT 1", "-U")
    for role in ("postgres", "syntegra_user", OTHER_USER):
        assert "Permission denied" in as_other_user(*psql, role, cwd=Path("/")).stderr
    for directory in (data, sockets):
        assert "Permission denied" in as_other_user("ls", directory, cwd=Path("/")).stderr
    # Even if the folder and the socket were opened, the server would know the user.
    for opened in (sockets, sockets / ".s.PGSQL.5432"):
        opened.chmod(0o777)
    for role in ("postgres", "syntegra_user", OTHER_USER):
        assert "Peer authentication failed" in as_other_user(*psql, role, cwd=Path("/")).stderr
    for role in ("postgres", "syntegra_user"):
        assert subprocess.run([*psql, role], capture_output=True, text=True, check=True).stdout == "1\n"
    sockets.chmod(0o700)


def test_server_opens_no_port(folder: Path) -> None:
    with psycopg.connect(embedded.start_server(folder / "18")) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    pid = (folder / "18/postmaster.pid").read_text(encoding="utf-8").split()[0]
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    tcp = [line.split()[9] for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()[1:]]
    assert not inodes & {f"socket:[{inode}]" for inode in tcp}
    assert embedded.stop_server(folder / "18")


@pytest.mark.parametrize("path", ["short", LONG])
def test_start_changes_no_mode_of_other_folders(folder: Path, path: str) -> None:
    project = folder / "private" / path
    project.mkdir(parents=True)
    above = [*project.parents, project, *_programs.bin_directory().parents]
    (folder / "private").chmod(0o700)
    before = {directory: directory.stat().st_mode for directory in above}
    start_in(project)
    succeed("syntegra-db", "upgrade", "001", cwd=project)
    assert {directory: directory.stat().st_mode for directory in above} == before


@pytest.mark.parametrize("name", AWKWARD)
def test_name_of_folder_is_not_interpreted(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    project = folder / name
    project.mkdir()
    monkeypatch.chdir(project)
    embedded.start()
    for url in (database_url(), embedded.running_url().render_as_string()):
        with psycopg.connect(conninfo(parse_url(url))) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("syntegra_user",)
    assert succeed("syntegra-db", "psql", "-Atc", "SELECT current_user", cwd=project) == "syntegra_user\n"
    assert embedded.stop() == [18]
    assert [path for path in folder.rglob("*executed*") if path.name == "executed"] == []
    assert [path.name for path in folder.iterdir()] == [name]


def make_directory(path: Path) -> None:
    path.mkdir()
    shutil.chown(path, OTHER_USER)


def make_open_directory(path: Path) -> None:
    path.mkdir()
    shutil.chown(path, _programs.server_user().pw_uid)
    path.chmod(0o777)


def make_link(path: Path) -> None:
    target = path.with_name(f"{path.name}-target")
    target.mkdir(mode=0o700)
    shutil.chown(target, _programs.server_user().pw_uid)
    path.symlink_to(target)


@pytest.mark.parametrize("prepare", [make_directory, make_open_directory, make_link])
def test_socket_folder_prepared_by_another_user_is_rejected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, prepare: object
) -> None:
    temporary = folder / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    data = folder / LONG
    embedded.start_server(data)
    assert embedded.stop_server(data)
    assert list(temporary.iterdir()) == []
    assert callable(prepare)
    prepare(temporary / socket_directory_name(data))
    with pytest.raises(EmbeddedServerError, match=r"is not private: .* Remove it, or set TMPDIR"):
        embedded.start_server(data)
    assert not embedded.stop_server(data)


def test_server_of_another_user_in_its_socket_folder_is_not_used(folder: Path) -> None:
    sockets = start_in(folder / LONG)
    data = folder / LONG / ".postgres/18"
    assert embedded.stop_server(data)
    sockets.mkdir(mode=0o755)
    shutil.chown(sockets, OTHER_USER)
    imitation = (
        "import socket, sys; server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen(); "
        "print(flush=True); server.accept()[0].recv(1)"
    )
    with subprocess.Popen(
        [*SETPRIV, "/usr/bin/python3", "-c", imitation, sockets / ".s.PGSQL.5432"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            result = run("syntegra-db", "status", cwd=folder / LONG)
        finally:
            process.kill()
            shutil.rmtree(sockets)
    assert f'requirepeer specifies "pgserver", but actual peer user name is "{OTHER_USER}"' in result.stderr


def test_rules_that_trust_every_user_are_replaced_at_start(folder: Path) -> None:
    data = folder / "18"
    embedded.start_server(data)
    embedded.stop_server(data)
    (data / "pg_hba.conf").write_text("local all all trust\nhost all all all trust\n", encoding="utf-8")
    with (data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write("listen_addresses = '*'\nport = 54399\nunix_socket_directories = '/tmp'\n")
    with psycopg.connect(embedded.start_server(data)) as connection:
        rules = connection.execute("SELECT type, auth_method FROM pg_hba_file_rules").fetchall()
        assert rules == [("local", "peer")]
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == (".",)
    assert embedded.stop_server(data)


def test_configuration_files_that_are_links_are_replaced(folder: Path) -> None:
    """The server's user could make root overwrite the file that a link names."""
    data, victim = folder / "18", folder / "victim"
    embedded.start_server(data)
    embedded.stop_server(data)
    victim.write_text("kept", encoding="utf-8")
    for name in ("pg_hba.conf", "pg_ident.conf"):
        (data / name).unlink()
        (data / name).symlink_to(victim)
    embedded.start_server(data)
    embedded.stop_server(data)
    (data / "log").unlink()
    (data / "log").symlink_to(victim)
    with pytest.raises(EmbeddedServerError, match="Too many levels of symbolic links"):
        embedded.start_server(data)
    assert victim.read_text(encoding="utf-8") == "kept"


def test_server_process_has_no_secrets_of_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DATABASE_URL", "POSTGRES_PASSWORD", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "s3cret")
    with psycopg.connect(embedded.start_server(folder / "18")) as connection:
        connection.execute("CREATE TEMPORARY TABLE output (line text)")
        connection.execute("COPY output FROM PROGRAM 'env'")
        assert connection.execute("SELECT line FROM output WHERE line LIKE '%s3cret%'").fetchall() == []
    assert embedded.stop_server(folder / "18")


def test_other_user_has_own_server_and_no_access_to_roots(folder: Path) -> None:
    own, roots = folder / "own", folder / "roots"
    own.mkdir()
    shutil.chown(own, OTHER_USER)
    start_in(roots)
    command = (PROGRAMS / "syntegra-db", "local")
    started = as_other_user(*command, "start", cwd=own)
    assert "PostgreSQL 18 is running" in started.stdout, started.stderr
    assert (own / ".postgres/18").owner() == OTHER_USER
    assert as_other_user(*command, "psql", "-Atc", "SELECT 1", cwd=own).stdout == "1\n"
    assert succeed("syntegra-db", "psql", "-Atc", "SELECT 1", cwd=own) == "1\n"
    for arguments, status in ((("start",), 13), (("stop",), 13), (("url",), 3)):
        refused = as_other_user(*command, *arguments, cwd=roots)
        assert (refused.returncode, refused.stderr.count("\n")) == (status, 1), refused.stderr
        assert "Permission denied" in refused.stderr
    assert "stopped" in as_other_user(*command, "stop", cwd=own).stdout


def test_start_of_root_in_folder_of_user_is_rejected(folder: Path) -> None:
    shutil.chown(folder, OTHER_USER)
    as_other_user(PROGRAMS / "syntegra-db", "local", "start", cwd=folder)
    as_other_user(PROGRAMS / "syntegra-db", "local", "stop", cwd=folder)
    refused = run("syntegra-db", "local", "start", cwd=folder)
    assert refused.returncode == 13
    assert "belongs to the user daemon. Run the command as that user" in refused.stderr
    shutil.chown(folder / ".postgres/18", "root")
    refused = run("syntegra-db", "local", "start", cwd=folder)
    command = refused.stderr.strip().partition("Give it to that user: ")[2]
    subprocess.run(command, shell=True, check=True)  # noqa: S602  as an operator would
    succeed("syntegra-db", "local", "start", cwd=folder)


def test_start_in_read_only_folder_prints_one_line_and_leaves_nothing(folder: Path) -> None:
    project = folder / "project"
    project.mkdir(mode=0o555)
    shutil.chown(project, OTHER_USER)
    refused = as_other_user(PROGRAMS / "syntegra-db", "local", "start", cwd=project)
    assert refused.returncode == 13
    assert refused.stderr.startswith(
        f"Error: The embedded PostgreSQL cannot use {project}/.postgres: Permission denied."
    )
    assert refused.stderr.count("\n") == 1
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("version", embedded.VERSIONS)
def test_programs_in_folder_of_root_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """The server's user cannot read an environment in, for example, /root."""
    shared, package = folder / "shared", embedded.bin_directory(version).parents[1]
    private = folder / "private" / package.name
    for source in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, private.with_name(source.name), symlinks=True)
    private.parent.chmod(0o700)
    monkeypatch.setattr(_programs, "SHARED_DIRECTORY", shared)
    monkeypatch.setattr(_programs, "bin_directory", lambda _: private / _programs.INSTALL_DIRECTORIES[version] / "bin")
    for _ in range(2):
        with psycopg.connect(embedded.start_server(folder / "data", version)) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        assert embedded.stop_server(folder / "data", version)
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert {path.stat().st_uid for path in shared.rglob("*")} == {0}
    assert not [path for path in shared.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]


def test_environment_with_shell_characters_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = folder / "$(touch executed)" / "bin"
    shutil.copytree(embedded.bin_directory(), programs)
    monkeypatch.setattr(_programs, "bin_directory", lambda _: programs)
    with pytest.raises(EmbeddedServerError, match="a character that shells interpret"):
        embedded.start_server(folder / "data")
    assert not (folder / "data").exists()


def test_lock_is_not_open_to_other_users(folder: Path) -> None:
    start_in(folder)
    for directory in (".postgres", ".postgres/18"):
        held = as_other_user("flock", "--nonblock", directory, "true", cwd=folder)
        assert "Permission denied" in held.stderr


def test_temporary_folder_that_cannot_have_a_socket_names_tmpdir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folders, "MAX_SOCKET_PATH_BYTES", 5)
    with pytest.raises(EmbeddedServerError, match="Set TMPDIR to a short path"):
        embedded.start_server(folder / "18")
    assert not embedded.stop_server(folder / "18")
