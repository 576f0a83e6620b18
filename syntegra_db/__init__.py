"""The schema of SYNTEGRA's data on PostgreSQL: models, migrations and the tools around them.

Start with `syntegra_db.models` (the tables), `syntegra_db.database` (engines and sessions), `syntegra_db.bulk` (COPY),
`syntegra_db.vectors` (similarity search) and `syntegra_db.migrations` (`upgrade`, `require_head`). Operators use the
command `syntegra-db`, which is also `python -m syntegra_db`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name):  # noqa: ANN001, ANN202  type checkers see the declaration above
        """Read `__version__` from the installed distribution when it is first used: importing stays cheap."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("syntegra-db")
