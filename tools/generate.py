"""Write the generated files that come from the code alone; `make generate` also writes SQL scripts and manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools import (
    api_docs,
    architecture,
    command_docs,
    exit_statuses,
    json_schemas,
    revision_docs,
    schema_docs,
    verify_script,
)
from tools.sections import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

RENDERERS: dict[str, Callable[[], str]] = {
    "docs/api.md": api_docs.render,
    "docs/architecture.md": architecture.render,
    "docs/commands.md": command_docs.render,
    "docs/exit-statuses.md": exit_statuses.render,
    "docs/reference/json.md": json_schemas.render_page,
    "docs/reference/json.schema.json": json_schemas.render_schema,
    revision_docs.GUIDE: revision_docs.guide,
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
