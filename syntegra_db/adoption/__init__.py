"""Adopt a database whose tables were created outside migrations: plan the changes, and apply them."""

from syntegra_db.adoption._apply import apply
from syntegra_db.adoption._model import (
    AdoptionInput,
    AdoptionPlan,
    AdoptionResult,
    Backfill,
    OpenQuestion,
    SchemaChange,
    TableRewrite,
    describe_question,
    parse_assignments,
    require_no_open_questions,
)
from syntegra_db.adoption._planning import plan

__all__ = [
    "AdoptionInput",
    "AdoptionPlan",
    "AdoptionResult",
    "Backfill",
    "OpenQuestion",
    "SchemaChange",
    "TableRewrite",
    "apply",
    "describe_question",
    "parse_assignments",
    "plan",
    "require_no_open_questions",
]
