"""Check the revisions before their release; `make lint` runs this.

The exit status is 1 if something has to be changed.
"""

from __future__ import annotations

import sys

from syntegra_db.errors import SyntegraDBError
from syntegra_db.migrations.authoring import lint_revisions


def main() -> int:
    """Print what has to be changed and return the exit status."""
    try:
        remarks = lint_revisions()
    except SyntegraDBError as error:
        print(error, file=sys.stderr)
        return 1
    for remark in remarks:
        print(f"{remark.path}: {remark.text}")
    return bool(remarks)


if __name__ == "__main__":
    sys.exit(main())
