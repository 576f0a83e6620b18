"""What is expected of a database besides the manifests: the version table and the clients."""

from __future__ import annotations

from syntegra_db.catalog._schema import Column, Table
from syntegra_db.revisions import VERSION_TABLE

# The clients, and so the values that it may have, belong to the application.
APPLICATION_COLUMN = "client_id"
DECLARED_VERSION_TABLE = Table(
    columns={"version_num": Column("character varying(32)", "NOT NULL", "EXTENDED")},
    constraints={f"{VERSION_TABLE}_pkc": "PRIMARY KEY (version_num)"},
)
