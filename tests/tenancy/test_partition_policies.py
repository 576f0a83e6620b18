"""Partitions under policies: `verify` names those that show rows of every client, and `disable` clears them."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from support.drift import drift_report
from support.logins import ROLES
from syntegra_db.tenancy import disable, enable

if TYPE_CHECKING:
    from support.servers import Database
    from syntegra_db.catalog import Finding

# As `op.partition_by_month` does: the table becomes the first partition.
PARTITION = """
    ALTER TABLE clusters RENAME TO clusters_past;
    CREATE TABLE clusters (LIKE clusters_past INCLUDING DEFAULTS) PARTITION BY RANGE (id);
    ALTER TABLE clusters ATTACH PARTITION clusters_past FOR VALUES FROM (MINVALUE) TO (1000);
    CREATE TABLE clusters_rest PARTITION OF clusters DEFAULT
"""
PAST, REST = "public.clusters_past", "public.clusters_rest"
MUTATIONS: dict[str, tuple[LiteralString, set[str]]] = {
    "policy for everyone": (
        "CREATE POLICY everyone ON clusters_past USING (true)",
        {"policy everyone on clusters_past"},
    ),
    "policy with another condition": (
        "ALTER POLICY client_select ON clusters_past USING (client_id > 0)",
        {"policy client_select on clusters_past"},
    ),
    "row-level security off": (
        "ALTER TABLE clusters_past DISABLE ROW LEVEL SECURITY",
        {f"privileges of {role} on {PAST}" for role in ROLES},
    ),
    "TRUNCATE": ("GRANT TRUNCATE ON clusters_past TO syntegra_service", {f"privileges of {ROLES.service} on {PAST}"}),
    "month that a group reads": (
        "GRANT SELECT ON clusters_rest TO syntegra_reader",
        {f"privileges of {ROLES.reader} on {REST}"},
    ),
    "month that everyone reads": ("GRANT SELECT (id) ON clusters_rest TO PUBLIC", {f"privileges of PUBLIC on {REST}"}),
    "policy and privileges that are missing": (
        "DROP POLICY client_delete ON clusters_past; REVOKE ALL ON clusters_past FROM syntegra_reader",
        set(),
    ),
}


@pytest.fixture
def partitioned(separated: Database) -> Database:
    separated.execute(PARTITION)
    enable(separated.engine)
    return separated


def findings(database: Database) -> list[Finding]:
    """Return those on the partitions; others are about the table, which is not declared as partitioned."""
    return [
        finding
        for finding in drift_report(database).findings
        if finding.object.startswith(("policy", "privilege", "row-level")) and "clusters_" in finding.object
    ]


@pytest.mark.parametrize("kind", MUTATIONS)
def test_partition_that_shows_rows_is_named_and_fixed(partitioned: Database, kind: str) -> None:
    statement, objects = MUTATIONS[kind]
    assert findings(partitioned) == []
    partitioned.execute(statement)
    found = findings(partitioned)
    assert {finding.object for finding in found} == objects
    for finding in found:
        with partitioned.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for line in finding.fix.splitlines():
                connection.exec_driver_sql(line)
    assert findings(partitioned) == []


@pytest.mark.parametrize("change", ["DETACH PARTITION clusters_past", "DETACH PARTITION clusters_rest"])
def test_disable_clears_detached_partitions(partitioned: Database, change: LiteralString) -> None:
    partitioned.execute("ALTER TABLE clusters " + change)
    assert set(disable(partitioned.engine).dropped_roles) == set(ROLES)
    assert partitioned.query("SELECT FROM pg_policy UNION ALL SELECT FROM pg_class WHERE relrowsecurity") == []
