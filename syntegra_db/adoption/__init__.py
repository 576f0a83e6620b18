"""Taking over a database whose tables were made by hand: what would change, and the change itself."""

from syntegra_db.adoption._apply import apply
from syntegra_db.adoption._model import (
    AdoptionInput,
    AdoptionPlan,
    AdoptionResult,
    Backfill,
    OpenQuestion,
    SchemaChange,
    TableRewrite,
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
    "plan",
]
