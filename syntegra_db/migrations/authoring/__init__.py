"""Write the next revision in a checkout."""

from syntegra_db.migrations.authoring._checkout import require_checkout
from syntegra_db.migrations.authoring._revision import NewRevision, require_new_name, write_revision

__all__ = ["NewRevision", "require_checkout", "require_new_name", "write_revision"]
