"""docs/guides/plain-sql.md: its statements run as printed, and the schema is still verified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from support.commands import succeed

if TYPE_CHECKING:
    from support.servers import Database

PAGE = Path(__file__).parents[2] / "docs/guides/plain-sql.md"


def test_statements_of_the_page_run_and_verify_accepts_their_indexes(database: Database) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    statements = [statement for block in blocks for statement in block.split(";\n") if statement.strip()]
    for statement in statements:
        database.execute(statement)
    created = [statement.split()[3] for statement in statements if statement.startswith("CREATE INDEX")]
    assert len(created) == 5
    valid = database.query("SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid")
    assert {(name,) for name in created} <= set(valid)
    assert succeed("syntegra-db", "verify", url=database.environment_url)
