"""`verify` finds each change to what separates the clients, and its fixes, run as printed, restore it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from support.commands import run as run_command
from support.drift import drift_report, drifted_objects, run
from support.logins import drop_group_roles
from syntegra_db import tenancy
from syntegra_db.client_policies import group_roles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server
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
# What looks similar and lets nobody see another client.
HARMLESS = {
    "view of the caller": "CREATE VIEW kpis WITH (security_invoker = on) AS SELECT * FROM kpi_summary",
    "view of the shared table": "CREATE VIEW trends AS SELECT * FROM trend_signals; GRANT SELECT ON trends TO PUBLIC",
    "materialized view of the owner": "CREATE MATERIALIZED VIEW kpis AS SELECT * FROM kpi_summary",
    "function that services cannot call": f"{FUNCTION}; REVOKE EXECUTE ON FUNCTION total() FROM PUBLIC",
    "function of the caller": FUNCTION.replace(" SECURITY DEFINER", ""),
    "privileges of a role without such logins": "GRANT SELECT, TRUNCATE ON clusters TO {other}",
    "revision that everybody reads": "GRANT SELECT ON alembic_version TO PUBLIC",
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


@pytest.mark.every_case
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
