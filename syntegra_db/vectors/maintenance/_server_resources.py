"""How much memory and disk the server's machine has free, as far as a role can see it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

KIBIBYTE = 1024
MAX_FILE_BYTES = 16_384
MEMINFO_PATH = "/proc/meminfo"
# Of a container: its limit, what it uses, and what of that are cached files, which give way. In cgroups of version 2,
# https://docs.kernel.org/admin-guide/cgroup-v2.html, and of version 1.
CGROUP_PATHS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
# Asked first: the server refuses a statement that only names a function that the role may not call.
MAY_READ_FILES = text(
    """
    SELECT has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'EXECUTE')
       AND pg_has_role('pg_read_server_files', 'USAGE')
    """
)
READ_SERVER_FILES = text("SELECT path, pg_read_file(path, 0, :bytes, true) FROM unnest(CAST(:paths AS text[])) AS path")
DATA_DIRECTORY = text(
    """
    SELECT setting FROM pg_settings
    WHERE name = 'data_directory' AND pg_has_role('pg_read_all_settings', 'USAGE')
      AND current_setting('default_tablespace') = ''
      AND (SELECT dattablespace = (SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default')
           FROM pg_database WHERE datname = current_database())
    """
)


def free_memory(connection: Connection) -> int | None:
    """Return the bytes that the server can still get, or None for a role that may not read files of the server.

    That is the kernel's own estimate of what the machine has, or what is left in the container, if that is less.
    """
    if not connection.scalar(MAY_READ_FILES):
        return None
    paths = [MEMINFO_PATH, *(path for paths in CGROUP_PATHS for path in paths)]
    rows = connection.execute(READ_SERVER_FILES, {"paths": paths, "bytes": MAX_FILE_BYTES})
    files = {path: content for path, content in rows}  # noqa: C416  rows are no pairs to mypy
    found = [_machine_memory(files), *(_cgroup_memory(files, *paths) for paths in CGROUP_PATHS)]
    return min((free for free in found if free is not None), default=None)


def free_disk(connection: Connection) -> int | None:
    """Return the bytes that are free where the server's data folder is.

    None where the server is on another machine, or the role may not ask where it is.
    """
    url = connection.engine.url
    host = url.host or url.query.get("host") or "/"
    if not (isinstance(host, str) and host.startswith("/")):
        return None
    folder = connection.scalar(DATA_DIRECTORY)
    try:
        return None if folder is None else shutil.disk_usage(folder).free
    except OSError:
        return None


def _machine_memory(files: Mapping[str, str | None]) -> int | None:
    kibibytes = re.search(r"^MemAvailable: +(\d+) kB", files[MEMINFO_PATH] or "", re.MULTILINE)
    return int(kibibytes[1]) * KIBIBYTE if kibibytes else None


def _cgroup_memory(files: Mapping[str, str | None], limit: str, usage: str, statistics: str) -> int | None:
    most, used = (files[limit] or "").strip(), (files[usage] or "").strip()
    # Without a limit, version 2 says max.
    if not (most.isdigit() and used.isdigit()):
        return None
    cached = re.search(r"^(?:total_)?inactive_file (\d+)", files[statistics] or "", re.MULTILINE)
    return max(0, int(most) - int(used) + (int(cached[1]) if cached else 0))
