"""The docstring of a revision: its headings, filled with what its operations tell."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from syntegra_db.migrations._headings import HEADING_LINES
from syntegra_db.migrations.authoring._effects import (
    BATCHES,
    BUILD,
    OWN_SQL,
    READ,
    REWRITE,
    drops,
    effects,
    sql_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog import Schema
    from syntegra_db.migrations.authoring._effects import Effect
    from syntegra_db.migrations.online import CollectedSteps

LINE_LENGTH = 120
LOCK_MODE = re.compile(
    r"\b(?:SHARE UPDATE EXCLUSIVE|SHARE ROW EXCLUSIVE|ROW EXCLUSIVE|ACCESS EXCLUSIVE|ACCESS SHARE|ROW SHARE|SHARE)\b"
)
# What takes longer with more rows.
LONG = dict.fromkeys((BUILD, READ, BATCHES), "its rows are read") | {REWRITE: "it is rewritten"}
SHORT = "short, for every size of the tables."
STEPS_ARE_KEPT = "the finished steps are kept and recorded"
ALL_IS_ROLLED_BACK = "it is rolled back, and the database stays at"


def with_headings(text: str, headings: dict[str, str]) -> str:
    """Return the text of a revision with these texts under its headings."""

    def replace(match: re.Match[str]) -> str:
        heading = match["heading"]
        return _wrap(f"{heading}: {headings[heading]}" if heading in headings else match[0])

    start, quotes, rest = text.partition('\n"""\n')
    return HEADING_LINES.sub(replace, start) + quotes + rest


def derive_headings(
    upgrade: CollectedSteps, downgrade: CollectedSteps, before: Schema, revision: str | None
) -> dict[str, str]:
    """Return the texts that follow from the operations, on a database at `revision`, which has the schema `before`."""
    found = _effects_of(upgrade, before)
    locks = dict.fromkeys(f"{effect.lock} on {effect.table} {effect.duration}" for effect in found)
    long = {effect.table: f"{effect.table} ({LONG[effect.duration]})" for effect in found if effect.duration in LONG}
    return {
        "Locks": f"{'; '.join(locks) or 'none on an existing table'}.",
        "Duration": f"grows with the rows of {', '.join(long.values())}." if long else SHORT,
        "If it fails": (
            f"{STEPS_ARE_KEPT}; correct the cause and run `syntegra-db upgrade` again, which continues with the step "
            "that failed."
            if upgrade.is_divided
            else f"{ALL_IS_ROLLED_BACK} {revision}; correct the cause and run `syntegra-db upgrade` again."
        ),
        "Downgrade": _downgrade(downgrade),
    }


def outdated_headings(
    headings: dict[str, str], upgrade: CollectedSteps, downgrade: CollectedSteps, before: Schema, revision: str | None
) -> Iterator[str]:
    """Yield the headings that contradict the operations of the upgrade, each followed by the lines to write.

    The author may use other words than `derive_headings`: what is compared is the names of locks and tables, and the
    sentence of `make revision` about a failure.
    """
    derived = derive_headings(upgrade, downgrade, before, revision)
    found = _effects_of(upgrade, before)
    locks, duration, failure = (headings.get(name, "") for name in ("Locks", "Duration", "If it fails"))
    missing = dict.fromkeys(f"{effect.lock} on {effect.table}" for effect in found if not _names_lock(locks, effect))
    if missing:
        yield f"the docstring does not name {', '.join(missing)} under 'Locks'. {_write('Locks', derived)}"
    long = dict.fromkeys(effect.table for effect in found if effect.duration in LONG)
    unnamed = [table for table in long if not _has_word(duration, table)]
    if unnamed:
        yield (
            f"the docstring does not name {', '.join(unnamed)} under 'Duration', whose rows are read. "
            f"{_write('Duration', derived)}"
        )
    if (ALL_IS_ROLLED_BACK if upgrade.is_divided else STEPS_ARE_KEPT) in failure:
        yield (
            "the docstring has under 'If it fails' what was true before its operations changed. "
            f"{_write('If it fails', derived)}"
        )


def _write(heading: str, derived: dict[str, str]) -> str:
    return "Write:\n" + _wrap(f"{heading}: {derived[heading]}")


def _wrap(text: str) -> str:
    return textwrap.fill(text, LINE_LENGTH, break_long_words=False, break_on_hyphens=False)


def _effects_of(upgrade: CollectedSteps, before: Schema) -> list[Effect]:
    return [effect for _, parts in effects(upgrade.steps, before) for effect in parts]


def _names_lock(text: str, effect: Effect) -> bool:
    # Which lock a revision's own SQL takes is known only to its author.
    is_known = effect.duration == OWN_SQL or effect.lock in LOCK_MODE.findall(text)
    return is_known and _has_word(text, effect.table)


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _downgrade(downgrade: CollectedSteps) -> str:
    dropped = drops(downgrade.steps)
    sentences = [f"drops {', '.join(dropped)} with the values." if dropped else "deletes no rows and no values."]
    if any("CREATE TYPE" in sql_of(operation) for step in downgrade.steps for operation in step.in_transaction()):
        sentences.append("It fails if a row has a label that the ENUM type no longer has, and rewrites the table.")
    return " ".join(sentences)
