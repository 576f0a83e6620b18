"""Write the next revision in a checkout, and check the revisions before their release."""

from syntegra_db.migrations.authoring._alike import kept_alike
from syntegra_db.migrations.authoring._checkout import require_checkout
from syntegra_db.migrations.authoring._lint import Remark, lint_revisions
from syntegra_db.migrations.authoring._revision import NewRevision, require_new_name, write_revision

__all__ = [
    "NewRevision",
    "Remark",
    "kept_alike",
    "lint_revisions",
    "require_checkout",
    "require_new_name",
    "write_revision",
]
