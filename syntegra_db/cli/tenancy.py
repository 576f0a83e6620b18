"""`syntegra-db tenancy`: separate the clients, so that each sees its own rows only, and bind logins to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db.cli import environment
from syntegra_db.cli.arguments import Json
from syntegra_db.cli.confirmation import confirm
from syntegra_db.cli.output import echo, print_json, print_table

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from syntegra_db.tenancy import TenancyStatus

app = typer.Typer(help="Let each client see its own rows, and only those.", no_args_is_help=True)

# A negative number of a client is no option.
NO_OPTIONS = {"ignore_unknown_options": True}

Yes = Annotated[bool, typer.Option("--yes", help="Do not prompt.")]


@app.command(epilog=environment.DATABASE_AND_LOCKS)
def enable(
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            help="Beginning of the names of the group roles, which the whole server has.  [default: syntegra_]",
        ),
    ] = None,
    *,
    json_output: Json = False,
) -> None:
    """Create group roles and policies, so that services see one client; a second run completes what is missing."""
    from syntegra_db import tenancy
    from syntegra_db.cli.results import SeparationResult
    from syntegra_db.migrations import load_migration_options

    result = tenancy.enable(_engine("syntegra_db tenancy"), prefix=prefix, options=load_migration_options())
    if json_output:
        print_json(SeparationResult(result.tenancy.prefix, list(result.created_roles), result.attach_statements))
        return
    created = f"; created {', '.join(result.created_roles)}" if result.created_roles else ""
    echo(f"Clients are separated{created}")
    echo("To attach a login, with its name instead of my_login, run one of these as an administrator:")
    for statement in result.attach_statements:
        echo(f"  {statement}")
    echo("To attach a login to one client, for direct SQL: syntegra-db tenancy bind LOGIN CLIENT")


@app.command(epilog=environment.DATABASE_AND_LOCKS)
def disable(*, yes: Yes = False, json_output: Json = False) -> None:
    """Remove what enable made: every login of the group roles loses access to the rows."""
    from syntegra_db import tenancy
    from syntegra_db.errors import ConfirmationRequired
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.settings import describe_database

    engine = _engine("syntegra_db tenancy")
    found = tenancy.read_tenancy_status(engine)
    if found.is_enabled:
        tenancy.require_ownership(engine)
        confirm(_describe_loss(found, describe_database(engine.url)), ConfirmationRequired, yes=yes)
    result = tenancy.disable(engine, options=load_migration_options())
    if json_output:
        print_json(result)
        return
    dropped = f"; dropped {', '.join(result.dropped_roles)}" if result.dropped_roles else ""
    echo(f"Clients are not separated any more{dropped}")
    for role, reason in result.kept_roles.items():
        echo(f"Role {role} stays: {reason}")


@app.command(epilog=environment.DATABASE)
def status(*, json_output: Json = False) -> None:
    """Print whether the clients are separated, the logins of each group role, and the bound ones."""
    from syntegra_db import tenancy

    found = tenancy.read_tenancy_status(_engine("syntegra_db"))
    if json_output:
        print_json(found)
        return
    _print(found)


@app.command(epilog=environment.DATABASE_AND_LOCKS, context_settings=NO_OPTIONS)
def bind(
    login: Annotated[str, typer.Argument(help="Role that can log in.")],
    client: Annotated[int, typer.Argument(help="Number of the client.")],
    *,
    json_output: Json = False,
) -> None:
    """Let a login read the rows of one client, whatever its sessions set, for direct SQL and reports."""
    from syntegra_db import tenancy
    from syntegra_db.migrations import load_migration_options

    binding = tenancy.bind(_engine("syntegra_db tenancy"), login, client, options=load_migration_options())
    if json_output:
        print_json(binding)
        return
    echo(f"{binding.login} reads the rows of client {binding.client_id}, and no others")


@app.command(epilog=environment.DATABASE_AND_LOCKS, context_settings=NO_OPTIONS)
def unbind(
    login: Annotated[str, typer.Argument(help="Bound login.")],
    *,
    json_output: Json = False,
) -> None:
    """Take the client from a bound login: it sees no rows any more."""
    from syntegra_db import tenancy
    from syntegra_db.cli.results import UnboundLogin
    from syntegra_db.migrations import load_migration_options

    tenancy.unbind(_engine("syntegra_db tenancy"), login, options=load_migration_options())
    if json_output:
        print_json(UnboundLogin(login))
        return
    echo(f"{login} is bound to no client")


def _engine(application_name: str) -> Engine:
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.settings import database_url

    return unpooled_engine(database_url(), application_name)


def _describe_loss(found: TenancyStatus, database: str) -> str:
    logins = sorted({login for members in found.logins.values() for login in members})
    names = f"These logins lose access to the rows of the {database}: {', '.join(logins)}." if logins else ""
    bound = " The clients of bound logins are deleted." if found.bindings else ""
    return names + bound or f"No login of the {database} is in a group role."


def _print(found: TenancyStatus) -> None:
    if not found.is_enabled:
        echo(f"Clients are not separated in schema {found.schema}. To separate them: syntegra-db tenancy enable")
        return
    echo(f"Clients are separated in schema {found.schema}")
    print_table(("Role", "Logins"), [(role, ", ".join(logins) or "none") for role, logins in found.logins.items()])
    for login, reason in found.unsafe_logins.items():
        echo(f"UNSAFE: {login} {reason}, so it can see rows of every client")
    if found.bindings is None:
        echo("Bound logins: this role may not read them")
    elif found.bindings:
        rows = [
            (binding.login, str(binding.client_id), "yes" if binding.is_attached else "no: it sees no rows")
            for binding in found.bindings
        ]
        echo()
        print_table(("Bound login", "Client", "Attached"), rows)
    if found.unprotected_tables:
        echo(f"Not protected: {', '.join(found.unprotected_tables)}. Complete them: syntegra-db tenancy enable")
    if found.tables_without_client:
        echo(
            f"No service may read {', '.join(found.tables_without_client)}: a table without client_id is for services "
            "only if SHARED_TABLES in syntegra_db/client_policies.py has it"
        )
