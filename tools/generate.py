"""Write the generated files that come from the code alone; `make generate` also writes SQL scripts and manifests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tools import schema_docs, verify_script

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
RENDERERS: dict[str, Callable[[], str]] = {
    "docs/schema.md": schema_docs.render,
    "scripts/verify_analytics_tables.sql": verify_script.render,
}


def main() -> None:
    """Write every file of `RENDERERS` and print its path."""
    for path, render in RENDERERS.items():
        (ROOT / path).write_text(render(), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
