"""The tables of exit statuses, in English and Spanish, explain every one."""

from __future__ import annotations

import re

import pytest

from support.commands import ROOT
from syntegra_db import errors

# The statuses of wrong usage and of Ctrl-C.
OTHER_STATUSES = {2, 129, 130, 141, 143}
ENGLISH = "docs/exit-statuses.md"
SPANISH = "docs/es/migraciones.md"


@pytest.mark.parametrize(
    ("page", "header", "others"), [(ENGLISH, "Status", OTHER_STATUSES), (SPANISH, "Estado", {0, *OTHER_STATUSES})]
)
def test_table_of_page_explains_every_exit_status(page: str, header: str, others: set[int]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    [table] = re.findall(rf"^\| {header} \|.*\n\| --- .*\n((?:\|.*\n)+)", text, re.MULTILINE)
    explained = [int(line.split("|")[1]) for line in table.splitlines()]
    assert explained == sorted(exit_statuses(errors.SyntegraDBError) | others)


def exit_statuses(error: type[errors.SyntegraDBError]) -> set[int]:
    return {error.exit_status}.union(*(exit_statuses(kind) for kind in error.__subclasses__()))
