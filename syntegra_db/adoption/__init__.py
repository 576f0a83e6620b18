"""Adopt a database whose tables were created outside migrations: plan the changes, and apply them."""

from syntegra_db.adoption._apply import apply
from syntegra_db.adoption._model import (
    AcceptedLoss,
    AdoptionInput,
    AdoptionPlan,
    AdoptionResult,
    Backfill,
    OpenQuestion,
    SchemaChange,
    TableRewrite,
    WriterRequirement,
    describe_question,
    parse_assignments,
    parse_columns,
    require_no_open_questions,
)
from syntegra_db.adoption._planning import plan

__all__ = [
    "AcceptedLoss",
    "AdoptionInput",
    "AdoptionPlan",
    "AdoptionResult",
    "Backfill",
    "OpenQuestion",
    "SchemaChange",
    "TableRewrite",
    "WriterRequirement",
    "apply",
    "describe_question",
    "parse_assignments",
    "parse_columns",
    "plan",
    "require_no_open_questions",
]
