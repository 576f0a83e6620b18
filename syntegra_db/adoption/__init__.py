"""Taking over a database whose tables were made by hand: what would change, and the change itself."""

from syntegra_db.adoption.applying import apply
from syntegra_db.adoption.parts import Adopted, Answers, Change, Decision, Fill, Plan, Rewrite
from syntegra_db.adoption.planning import plan

__all__ = ["Adopted", "Answers", "Change", "Decision", "Fill", "Plan", "Rewrite", "apply", "plan"]
