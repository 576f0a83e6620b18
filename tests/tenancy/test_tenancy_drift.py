"""`verify` finds each change to what separates the clients, and its fixes, run as printed, restore it."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT, succeed
from support.commands import run as run_command
from support.drift import drift_report, drifted_objects, run
from support.logins import drop_group_roles
from support.revisions import HEAD
from support.servers import Database
from syntegra_db import migrations, tenancy
from syntegra_db.client_policies import group_roles
from syntegra_db.errors import SchemaDrift

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Server
    from syntegra_db.catalog import DriftReport

# Not that of the other modules, because roles belong to the whole server.
PREFIX = "syntegra_verify_"
ROLES = group_roles(PREFIX)
LOGIN, OTHER = "syntegra_verify_login", "Otro ñ"
NAMES = {**ROLES._asdict(), "login": LOGIN, "other": f'"{OTHER}"'}
POLICY = "CREATE POLICY {name} ON kpi_summary FOR SELECT TO {service} USING (client_id > 0)"
FUNCTION = (
    "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM public.kpi_summary'"
)
# What is changed -> the statements, and the objects that are reported.
MUTATIONS: dict[str, tuple[str, set[str]]] = {
    "policy missing": ("DROP POLICY client_select ON kpi_summary", {"policy client_select on kpi_summary"}),
    "policy of bound logins missing": ("DROP POLICY bound_select ON clusters", {"policy bound_select on clusters"}),
    "policy with another expression": (
        "ALTER POLICY client_select ON kpi_summary USING (client_id = 7)",
        {"policy client_select on kpi_summary"},
    ),
    "policy with another check": (
        "ALTER POLICY client_insert ON clusters WITH CHECK (true)",
        {"policy client_insert on clusters"},
    ),
    "policy with other roles": (
        "ALTER POLICY admin_all ON clusters TO {admin}, {service}",
        {"policy admin_all on clusters"},
    ),
    "policy for PUBLIC": (
        "ALTER POLICY client_delete ON clusters TO PUBLIC",
        {"policy client_delete on clusters"},
    ),
    "policy of another command": (
        f"DROP POLICY client_select ON kpi_summary; {POLICY.replace('{name}', 'client_select')}",
        {"policy client_select on kpi_summary"},
    ),
    "policy that restricts": (
        (
            "DROP POLICY admin_all ON clusters;"
            " CREATE POLICY admin_all ON clusters AS RESTRICTIVE FOR ALL TO {admin} USING (true) WITH CHECK (true)"
        ),
        {"policy admin_all on clusters"},
    ),
    "extra policy": (POLICY.replace("{name}", '"Más filas"'), {"policy Más filas on kpi_summary"}),
    "extra policy on the shared table": (
        "CREATE POLICY all_rows ON trend_signals USING (true); ALTER TABLE trend_signals ENABLE ROW LEVEL SECURITY",
        {"policy all_rows on trend_signals", "table trend_signals"},
    ),
    "row-level security off": (
        "ALTER TABLE kpi_summary DISABLE ROW LEVEL SECURITY",
        {"row-level security of kpi_summary"},
    ),
    "row-level security forced": (
        "ALTER TABLE kpi_summary FORCE ROW LEVEL SECURITY",
        {"row-level security of kpi_summary"},
    ),
    "row-level security off and forced": (
        "ALTER TABLE clusters DISABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        {"row-level security of clusters"},
    ),
    "TRUNCATE": ("GRANT TRUNCATE ON clusters TO {service}", {"privileges of {service} on public.clusters"}),
    "INSERT of id": ("GRANT INSERT (id) ON clusters TO {service}", {"privileges of {service} on public.clusters"}),
    "INSERT on the table": ("GRANT INSERT ON clusters TO {service}", {"privileges of {service} on public.clusters"}),
    "UPDATE by readers": ("GRANT UPDATE ON clusters TO {reader}", {"privileges of {reader} on public.clusters"}),
    "grant option": (
        "GRANT SELECT ON clusters TO {service} WITH GRANT OPTION",
        {"privileges of {service} on public.clusters"},
    ),
    "PUBLIC on a table": ("GRANT SELECT ON kpi_summary TO PUBLIC", {"privileges of PUBLIC on public.kpi_summary"}),
    "PUBLIC on a column": (
        "GRANT UPDATE (kpi_name) ON kpi_summary TO PUBLIC",
        {"privileges of PUBLIC on public.kpi_summary"},
    ),
    "writes of services to the shared table": (
        "GRANT DELETE ON trend_signals TO {service}",
        {"privileges of {service} on public.trend_signals"},
    ),
    "privileges of a login": (
        "GRANT {service} TO {login}; GRANT INSERT, TRUNCATE ON clusters TO {login}",
        {"privileges of {login} on public.clusters"},
    ),
    "privileges of a role of a login": (
        "GRANT {reader} TO {login}; GRANT {other} TO {login}; GRANT INSERT ON clusters TO {other}",
        {f"privileges of {OTHER} on public.clusters"},
    ),
    "privilege granted by another role": (
        (
            "GRANT DELETE ON clusters TO {other} WITH GRANT OPTION;"
            " SET ROLE {other}; GRANT DELETE ON clusters TO {reader}; RESET ROLE"
        ),
        {"privileges of {reader} on public.clusters"},
    ),
    "table privilege missing": (
        "REVOKE SELECT ON clusters FROM {reader}",
        {"privileges of {reader} on public.clusters"},
    ),
    "column privilege missing": (
        "REVOKE UPDATE (cluster_id) ON clusters FROM {service}",
        {"privileges of {service} on public.clusters"},
    ),
    "sequence privilege missing": (
        "REVOKE USAGE ON SEQUENCE clusters_id_seq FROM {service}",
        {"privileges of {service} on SEQUENCE public.clusters_id_seq"},
    ),
    "sequence privilege extra": (
        "GRANT UPDATE ON SEQUENCE clusters_id_seq TO {service}",
        {"privileges of {service} on SEQUENCE public.clusters_id_seq"},
    ),
    "revision cannot be read": (
        "REVOKE SELECT ON alembic_version FROM {service}",
        {"privileges of {service} on public.alembic_version"},
    ),
    "revision can be written": (
        "GRANT UPDATE ON alembic_version TO {admin}",
        {"privileges of {admin} on public.alembic_version"},
    ),
    "bound logins can be read": (
        "GRANT SELECT ON bound_logins TO {other}",
        {f"privileges of {OTHER} on public.bound_logins"},
    ),
    "bound logins can be written": (
        "GRANT INSERT (login) ON bound_logins TO {service}",
        {"privileges of {service} on public.bound_logins"},
    ),
    "schema cannot be used": (
        "REVOKE USAGE ON SCHEMA public FROM {bound}, PUBLIC",
        {"privilege USAGE on schema public"},
    ),
    "schema can be changed": (
        "GRANT CREATE ON SCHEMA public TO {service}",
        {"privileges of {service} on schema public"},
    ),
    "function for PUBLIC": (
        "GRANT EXECUTE ON FUNCTION bound_client_id() TO PUBLIC",
        {"privileges of PUBLIC on FUNCTION public.bound_client_id()"},
    ),
    "function not for bound logins": (
        "REVOKE EXECUTE ON FUNCTION bound_client_id() FROM {bound}",
        {"privileges of {bound} on FUNCTION public.bound_client_id()"},
    ),
    "function with another body": (
        (
            "CREATE OR REPLACE FUNCTION bound_client_id() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE"
            " SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT 8::bigint'"
        ),
        {"function public.bound_client_id()"},
    ),
    "function of another owner": (
        "ALTER FUNCTION bound_client_id() OWNER TO {other}",
        {"owner of function public.bound_client_id()"},
    ),
    "function with another search_path": (
        "ALTER FUNCTION bound_client_id() SET search_path = public",
        {"function public.bound_client_id()"},
    ),
    "function of the caller": (
        "ALTER FUNCTION bound_client_id() SECURITY INVOKER",
        {"function public.bound_client_id()"},
    ),
    "function missing": (
        "DROP FUNCTION bound_client_id() CASCADE",
        {
            "function public.bound_client_id()",
            *(
                f"policy bound_select on {table}"
                for table in (
                    "anomaly_log",
                    "clusters",
                    "data_sources",
                    "kpi_summary",
                    "processed_data",
                    "text_summary",
                )
            ),
        },
    ),
    "group role with LOGIN and BYPASSRLS": ("ALTER ROLE {service} LOGIN BYPASSRLS", {"role {service}"}),
    "group role in another role": ("GRANT {other} TO {reader}", {"role {reader}"}),
    "superuser in a group": ("GRANT {service} TO {login}; ALTER ROLE {login} SUPERUSER", {"login {login}"}),
    "login with BYPASSRLS": ("GRANT {service} TO {login}; ALTER ROLE {login} BYPASSRLS", {"login {login}"}),
    "login with REPLICATION and ADMIN OPTION": (
        (
            "GRANT {service} TO {login} WITH ADMIN OPTION; ALTER ROLE {login} REPLICATION;"
            " GRANT {admin} TO {login} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
        ),
        {"login {login}"},
    ),
    "login that reads all data, through another role": (
        "GRANT {reader} TO {login}; GRANT pg_read_all_data TO {other}; GRANT {other} TO {login}",
        {"login {login}"},
    ),
    "login that can join a role with BYPASSRLS": (
        (
            "GRANT {reader} TO {login}; ALTER ROLE {other} BYPASSRLS;"
            " GRANT {other} TO {login} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
        ),
        {"login {login}"},
    ),
    "login in both kinds of groups": (
        "GRANT {bound}, {reader} TO {login}",
        {"login {login}"},
    ),
    "login in both kinds of groups, through another role": (
        "GRANT {reader} TO {other}; GRANT {bound}, {other} TO {login}",
        {"login {login}"},
    ),
    "owner in a group": (
        "ALTER TABLE clusters OWNER TO {other}; GRANT {other}, {service} TO {login}",
        {"login {login}"},
    ),
    "view": ("CREATE VIEW kpis AS SELECT * FROM kpi_summary; GRANT SELECT ON kpis TO {reader}", {"view public.kpis"}),
    "view of a join in another schema": (
        'CREATE SCHEMA bi; CREATE VIEW bi."Año" AS SELECT k.id FROM kpi_summary AS k JOIN clusters USING (client_id)',
        {'view bi."Año"'},
    ),
    "materialized view": (
        "CREATE MATERIALIZED VIEW kpis AS SELECT * FROM kpi_summary; GRANT SELECT ON kpis TO {reader}, PUBLIC",
        {"view public.kpis"},
    ),
    "view of a materialized view": (
        (
            "CREATE MATERIALIZED VIEW kpis AS SELECT * FROM kpi_summary; CREATE VIEW latest AS SELECT * FROM kpis;"
            " GRANT SELECT ON latest TO {service}"
        ),
        {"view public.latest"},
    ),
    "SECURITY DEFINER function": (FUNCTION, {"function public.total()"}),
    "SECURITY DEFINER procedure with parsed body": (
        (
            "CREATE PROCEDURE clear(minimum bigint) LANGUAGE sql SECURITY DEFINER"
            " BEGIN ATOMIC DELETE FROM clusters WHERE id > minimum; END"
        ),
        {"function public.clear(IN minimum bigint)"},
    ),
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO {service}",
        {"default privileges of postgres IN SCHEMA public on tables"},
    ),
    "default privileges for PUBLIC": (
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        {"default privileges of postgres on tables"},
    ),
}
# Those that do not touch what another one does; one run of CI has all kinds.
TOGETHER = (
    "policy missing",
    "policy with another check",
    "extra policy on the shared table",
    "row-level security off and forced",
    "TRUNCATE",
    "PUBLIC on a table",
    "sequence privilege missing",
    "revision can be written",
    "bound logins can be read",
    "function for PUBLIC",
    "function with another body",
    "superuser in a group",
    "view of a join in another schema",
    "materialized view",
    "SECURITY DEFINER function",
    "default privileges",
)
RECORD = "record of `syntegra-db tenancy` in the comment of public.bound_logins"
# What looks similar and shows no other client.
HARMLESS = {
    "view of the caller": "CREATE VIEW kpis WITH (security_invoker = on) AS SELECT * FROM kpi_summary",
    "view of the shared table": "CREATE VIEW trends AS SELECT * FROM trend_signals; GRANT SELECT ON trends TO PUBLIC",
    "materialized view of the owner": "CREATE MATERIALIZED VIEW kpis AS SELECT * FROM kpi_summary",
    "function that services cannot call": f"{FUNCTION}; REVOKE EXECUTE ON FUNCTION total() FROM PUBLIC",
    "function of the caller": FUNCTION.replace(" SECURITY DEFINER", ""),
    "privileges of a role without such logins": "GRANT SELECT, TRUNCATE ON clusters TO {other}",
    "revision that all roles read": "GRANT SELECT ON alembic_version TO PUBLIC",
    "login of each kind": "GRANT {service}, {admin} TO {login}",
    "role that an administrator created": "ALTER ROLE {other} LOGIN; GRANT {reader} TO {other}",
}


@pytest.fixture(scope="module")
def enabled_template(server: Server, migrated_template: str) -> Iterator[str]:
    """Yield the name of a database at head in which `tenancy enable` was run."""
    drop_group_roles(server, PREFIX)
    with server.database(migrated_template, "syntegra_test_enabled") as database:
        tenancy.enable(database.engine, prefix=PREFIX)
        yield database.name
    drop_group_roles(server, PREFIX)


@pytest.fixture
def enabled(server: Server, enabled_template: str) -> Iterator[Database]:
    """Yield such a database; the group roles, which all of them share, are restored afterwards."""
    with server.role(LOGIN), server.role(OTHER):
        server.execute(f'ALTER ROLE "{OTHER}" NOLOGIN')
        with server.database(enabled_template) as database:
            yield database
        for role in ROLES:
            server.execute(f"ALTER ROLE {role} NOLOGIN NOBYPASSRLS")


def fix(database: Database, report: DriftReport) -> None:
    """Run the fixes as they are printed."""
    for finding in report.findings:
        if command := re.search(r"-- Run `(syntegra-db [^`]+)`", finding.fix):
            result = run_command(*shlex.split(command[1]), url=database.environment_url)
            assert result.returncode == 0, result.stderr
        else:
            run(database, *(line for line in finding.fix.splitlines() if not line.startswith("--")))


def test_enabled_database_has_no_difference(enabled: Database) -> None:
    report = drift_report(enabled)
    assert (report.findings, report.notes) == ([], [])


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_is_named_and_fixed(enabled: Database, mutation: str) -> None:
    statements, objects = MUTATIONS[mutation]
    run(enabled, statements.format(**NAMES))
    report = drift_report(enabled)
    assert {*drifted_objects(report)} == {name.format(**NAMES) for name in objects}
    assert all(finding.expected != finding.found and finding.impact for finding in report.findings)
    assert not any("DROP POLICY client" in finding.fix and "CREATE" not in finding.fix for finding in report.findings)
    fix(enabled, report)
    assert drift_report(enabled).findings == []


@pytest.mark.parametrize("change", HARMLESS)
def test_change_that_shows_no_other_client_is_no_difference(enabled: Database, change: str) -> None:
    run(enabled, HARMLESS[change].format(**NAMES))
    assert drifted_objects(drift_report(enabled)) == []


def test_mutations_of_every_kind_are_fixed_together(enabled: Database) -> None:
    chosen = [MUTATIONS[name] for name in TOGETHER]
    run(enabled, *(statements.format(**NAMES) for statements, _ in chosen))
    report = drift_report(enabled)
    assert {*drifted_objects(report)} == {name.format(**NAMES) for _, objects in chosen for name in objects}
    fix(enabled, report)
    assert drift_report(enabled).findings == []


@pytest.mark.parametrize("loss", ["COMMENT ON TABLE bound_logins IS NULL", "DROP TABLE bound_logins"])
def test_missing_record_is_written_again(enabled: Database, loss: str) -> None:
    run(enabled, loss, "ALTER TABLE clusters DISABLE ROW LEVEL SECURITY")
    report = drift_report(enabled)
    (finding,) = report.findings
    assert (finding.object, finding.found) == (RECORD, "none, although the policies are there")
    assert f"`syntegra-db tenancy enable --prefix {PREFIX}`" in finding.fix
    fix(enabled, report)
    assert drift_report(enabled).findings == []


def test_damaged_record_is_replaced(enabled: Database) -> None:
    run(enabled, "COMMENT ON TABLE bound_logins IS 'syntegra_db tenancy {'")
    report = drift_report(enabled)
    assert drifted_objects(report) == [RECORD]
    fix(enabled, report)
    assert drift_report(enabled).findings == []


def test_record_of_another_role_is_explained(enabled: Database) -> None:
    run(enabled, "ALTER TABLE bound_logins OWNER TO {other}".format(**NAMES))
    report = drift_report(enabled)
    assert RECORD in drifted_objects(report)
    assert OTHER in report.findings[0].fix


def test_without_policies_of_this_package_nothing_changes(database: Database) -> None:
    run(database, POLICY.format(name="client_select", service="PUBLIC"))
    (finding,) = drift_report(database).findings
    assert finding.fix == "DROP POLICY client_select ON kpi_summary;"


@pytest.mark.parametrize("group", ROLES)
def test_logins_of_the_groups_find_the_same(enabled: Database, group: str) -> None:
    run(enabled, f"GRANT {group} TO {LOGIN}", "GRANT TRUNCATE ON clusters TO {service}".format(**NAMES))
    expected = drift_report(enabled).findings
    report = drift_report(Database(enabled.url_as(LOGIN)))
    assert (report.findings, report.notes) == (expected, [])


def test_rows_that_a_login_cannot_count_are_not_counted(enabled: Database) -> None:
    run(
        enabled,
        f"GRANT {ROLES.service} TO {LOGIN}",
        "ALTER TABLE anomaly_log ALTER method TYPE text",
        "INSERT INTO anomaly_log (client_id, kpi_name, value, method) VALUES (8, 'k', 1, repeat('x', 101))",
    )
    impacts = [drift_report(database).findings[0].impact for database in (enabled, Database(enabled.url_as(LOGIN)))]
    assert impacts[0].endswith("Rows that do not fit character varying(100): 1.")
    assert "cannot count those that do not fit character varying(100)" in impacts[1]


def test_login_outside_the_groups_gets_the_grant(enabled: Database) -> None:
    run(enabled, f"GRANT SELECT ON alembic_version TO {LOGIN}")
    (note,) = drift_report(Database(enabled.url_as(LOGIN))).notes
    run(enabled, note.fix)
    assert drift_report(Database(enabled.url_as(LOGIN))).notes == []


def test_alembic_check_finds_no_difference(enabled: Database) -> None:
    assert "No new upgrade operations" in succeed("alembic", "check", url=enabled.environment_url, cwd=ROOT)


@pytest.mark.long
def test_status_shows_the_prefix(enabled: Database, database: Database) -> None:
    assert PREFIX in succeed("syntegra-db", "status", url=enabled.environment_url)
    for found, prefix in ((enabled, PREFIX), (database, None)):
        report = json.loads(succeed("syntegra-db", "status", "--json", url=found.environment_url))
        assert report["tenancy_prefix"] == prefix


def test_migration_keeps_a_table_without_policies_in_view(enabled: Database) -> None:
    migrations.downgrade("002", url=enabled.url)
    migrations.upgrade(url=enabled.url)
    assert drift_report(enabled).findings == []
    run(enabled, "ALTER TABLE data_sources DISABLE ROW LEVEL SECURITY")
    with enabled.engine.connect() as connection:
        existing = migrations.read_existing_drift(connection)
    assert [finding.object for finding in existing] == ["row-level security of data_sources"]
    with pytest.raises(SchemaDrift, match="row-level security of data_sources"):
        migrations.verify_result(enabled.engine, HEAD, "Done", [])
