"""The docstring of a revision: its headings, filled with what its operations tell."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from syntegra_db.migrations.authoring._effects import BUILD, READ, REWRITE, drops, effects, sql_of

if TYPE_CHECKING:
    from syntegra_db.catalog import Schema
    from syntegra_db.migrations.authoring._effects import Effect
    from syntegra_db.migrations.online import CollectedSteps

HEADINGS = ("Why", "Locks", "Duration", "If it fails", "Downgrade")
HEADING_LINES = re.compile(
    rf"^(?P<heading>{'|'.join(HEADINGS)}):(?P<text>.*(?:\n(?!\n|\"\"\"|[A-Z][\w ]*:).*)*)", re.MULTILINE
)
LINE_LENGTH = 120


def read_headings(text: str) -> dict[str, str]:
    """Return the texts under the headings of a docstring."""
    return {match["heading"]: " ".join(match["text"].split()) for match in HEADING_LINES.finditer(text)}


def with_headings(text: str, headings: dict[str, str]) -> str:
    """Return the text of a revision with these texts under its headings."""

    def replace(match: re.Match[str]) -> str:
        heading = match["heading"]
        filled = f"{heading}: {headings[heading]}" if heading in headings else match[0]
        return textwrap.fill(filled, LINE_LENGTH, break_long_words=False, break_on_hyphens=False)

    start, quotes, rest = text.partition('\n"""\n')
    return HEADING_LINES.sub(replace, start) + quotes + rest


def derive_headings(
    upgrade: CollectedSteps, downgrade: CollectedSteps, before: Schema, revision: str
) -> dict[str, str]:
    """Return the texts that follow from the operations, on a database with the schema `before`."""
    found = [effect for _, parts in effects(upgrade.steps, before) for effect in parts]
    locks = dict.fromkeys(f"{effect.lock} on {effect.table} {effect.duration}" for effect in found if effect.lock)
    return {
        "Locks": f"{'; '.join(locks) or 'none on an existing table'}.",
        "Duration": _duration(found),
        "If it fails": (
            "the finished steps are kept and recorded; correct the cause and run `syntegra-db upgrade` again, which "
            "continues with the step that failed."
            if upgrade.is_divided
            else f"it is rolled back, and the database stays at {revision}; correct the cause and run `syntegra-db "
            "upgrade` again."
        ),
        "Downgrade": _downgrade(downgrade),
    }


def _duration(found: list[Effect]) -> str:
    long = dict.fromkeys(
        f"{effect.table} ({'it is rewritten' if effect.duration == REWRITE else 'its rows are read'})"
        for effect in found
        if effect.duration in {BUILD, READ, REWRITE} or "batch" in effect.duration
    )
    return f"grows with the rows of {', '.join(long)}." if long else "short, for every size of the tables."


def _downgrade(downgrade: CollectedSteps) -> str:
    dropped = drops(downgrade.steps)
    sentences = [f"drops {', '.join(dropped)} with the values." if dropped else "deletes no rows and no values."]
    if any("CREATE TYPE" in sql_of(operation) for step in downgrade.steps for operation in step.in_transaction()):
        sentences.append("It fails if a row has a label that the ENUM type no longer has, and rewrites the table.")
    return " ".join(sentences)
