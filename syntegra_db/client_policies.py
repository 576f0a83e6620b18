"""The policies and privileges with which each client sees its own rows only, and the mark of a database that has them.

`syntegra-db tenancy enable` and the template `protect_tables.sql`, which each migration runs, make what is declared
here; `verify` compares with it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from syntegra_db.client_setting import ALL_ROWS, BOUND_ROWS, LOOKUP_FUNCTION, OWN_ROWS
from syntegra_db.errors import TenancyError, UntrustedObject
from syntegra_db.search_path import read_session
from syntegra_db.sql import ORDINARY_TABLE, RELATION_KIND, catalog_query, literal, qualify, qualify_name, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

RoleKey = Literal["service", "reader", "admin", "bound"]
Command = Literal["ALL", "SELECT", "INSERT", "UPDATE", "DELETE"]

DEFAULT_PREFIX = "syntegra_"
PREFIX_FORMAT = "^(?!pg_)[a-z_][a-z0-9_]{0,39}$"
# Declared tables whose rows belong to no client: services read them, and the role for batch jobs writes them.
SHARED_TABLES = frozenset({"trend_signals"})
# Services leave the ids to the sequence: an id of their choice would show whether a row of another client has it.
ID_COLUMN = "id"
BINDINGS_TABLE = "bound_logins"
LOOKUP_BODY = "SELECT client_id FROM {table} WHERE login = session_user"
LOOKUP_PATH = "pg_catalog, pg_temp"
LOOKUP_SETTINGS = (f"search_path={LOOKUP_PATH}",)
# A function that a policy could mean instead: with it, no policy that calls the look-up can be created.
FIND_LOOKUP_OVERLOAD = """
  SELECT min(format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid)))
  FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
  WHERE nspname = {schema} AND proname = {name} AND pronargs > 0 AND pronargs = pronargdefaults
"""
MARK = "syntegra_db tenancy "
# The JSON object after it begins with the prefix of the roles.
MARK_WITH_PREFIX = MARK + '{{"prefix": "{prefix}"'
# The content of the table is trusted if its owner migrates; others can create a table of that name.
FIND_MARK = catalog_query(f"""
    SELECT {RELATION_KIND.format(relkind="relkind")} AS kind,
           obj_description(pg_class.oid, 'pg_class') AS mark, rolname::text AS owner,
           rolsuper OR rolname = current_user AS is_own,
           rolsuper OR rolname = current_user
             OR relowner = (SELECT relowner FROM pg_class WHERE oid = to_regclass(:version)) AS is_trusted
    FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner WHERE pg_class.oid = to_regclass(:name)
""")  # noqa: S608  constants


class GroupRoles(NamedTuple):
    """The names of the roles whose members are logins: none of them can log in.

    `service` and `reader` see the rows of the client in the setting, `admin` all rows, `bound` those of the client that
    its login is bound to.
    """

    service: str
    reader: str
    admin: str
    bound: str


class Policy(NamedTuple):
    """A policy of a table with the column `client_id`; `using` and `check` are as the server prints them."""

    name: str
    command: Command
    roles: tuple[RoleKey, ...]
    using: str | None = None
    check: str | None = None

    def using_in(self, schema: str | None) -> str | None:
        """Return `using` for tables in `schema`, printed with the search_path `pg_catalog`."""
        return self.using and self.using.format(lookup=qualify_name(schema, LOOKUP_FUNCTION))

    def statement(self, tenancy: Tenancy, table: str) -> str:
        """Return the CREATE POLICY for `table`."""
        roles = ", ".join(quote(getattr(tenancy.roles, role)) for role in self.roles)
        using = f" USING ({self.using_in(tenancy.schema)})" if self.using else ""
        check = f" WITH CHECK ({self.check})" if self.check else ""
        return (
            f"CREATE POLICY {quote(self.name)} ON {qualify(tenancy.schema, table)} FOR {self.command} TO "
            f"{roles}{using}{check};"
        )


class Grant(NamedTuple):
    """A privilege of one role; with `by_column`, on each column but `id` instead of the table."""

    role: RoleKey
    privilege: str
    by_column: bool = False


POLICIES = (
    Policy("client_select", "SELECT", ("service", "reader"), using=OWN_ROWS),
    Policy("client_insert", "INSERT", ("service",), check=OWN_ROWS),
    Policy("client_update", "UPDATE", ("service",), using=OWN_ROWS, check=OWN_ROWS),
    Policy("client_delete", "DELETE", ("service",), using=OWN_ROWS),
    Policy("admin_all", "ALL", ("admin",), using=ALL_ROWS, check=ALL_ROWS),
    Policy("bound_select", "SELECT", ("bound",), using=BOUND_ROWS),
)
_WRITER = (("SELECT", False), ("DELETE", False), ("INSERT", True), ("UPDATE", True))
# Of a table with the column `client_id`, of a shared table, of the version table.
CLIENT_GRANTS = (
    *(Grant(role, *privilege) for role in ("service", "admin") for privilege in _WRITER),
    Grant("reader", "SELECT"),
    Grant("bound", "SELECT"),
)
SHARED_GRANTS = (
    Grant("service", "SELECT"),
    Grant("reader", "SELECT"),
    *(Grant("admin", *privilege) for privilege in _WRITER),
)
VERSION_GRANTS = tuple(Grant(role, "SELECT") for role in GroupRoles._fields)  # type: ignore[arg-type]
# Of the sequences of both kinds of tables.
CLIENT_SEQUENCE_GRANTS = (Grant("service", "USAGE"), Grant("admin", "USAGE"))
SHARED_SEQUENCE_GRANTS = (Grant("admin", "USAGE"),)
LOOKUP_GRANTS = (Grant("bound", "EXECUTE"),)
# Of the schemas of the tables and of the extension `vector`, and of the database, where loads need temporary tables.
SCHEMA_GRANTS = tuple(Grant(role, "USAGE") for role in GroupRoles._fields)  # type: ignore[arg-type]
DATABASE_GRANTS = (Grant("service", "TEMPORARY"), Grant("admin", "TEMPORARY"))


@dataclass(frozen=True)
class Tenancy:
    """What the mark of a schema says: tables, policies and privileges are for the group roles with this prefix.

    `created_roles` are those that `enable` created. `granted` are the privileges that it granted outside of the tables:
    `schema`, `extension` or `database`, a point, and the key of the role.
    """

    schema: str | None
    prefix: str = DEFAULT_PREFIX
    created_roles: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()

    @property
    def roles(self) -> GroupRoles:
        """The names of the group roles."""
        return group_roles(self.prefix)

    @property
    def lookup_statement(self) -> str:
        """The CREATE FUNCTION for the client of a bound login, which changes one that exists."""
        body = literal(LOOKUP_BODY.format(table=qualify(self.schema, BINDINGS_TABLE)))
        return (
            f"CREATE OR REPLACE FUNCTION {qualify(self.schema, LOOKUP_FUNCTION)}() RETURNS pg_catalog.int8 "
            f"LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = {LOOKUP_PATH} AS {body};"
        )

    @property
    def mark(self) -> str:
        """The comment of the table with the bound logins."""
        content = {"prefix": self.prefix, "created_roles": self.created_roles, "granted": self.granted}
        return MARK + json.dumps(content)


def group_roles(prefix: str) -> GroupRoles:
    """Return the names of the group roles.

    Raises:
        TenancyError: the prefix is not one.
    """
    if not re.fullmatch(PREFIX_FORMAT, prefix):
        raise TenancyError(
            "The prefix of the roles begins with a letter or an underscore, but not with pg_, and has at most 40 lower "
            "case letters, digits and underscores. Nothing was changed."
        )
    return GroupRoles(*(f"{prefix}{key}" for key in GroupRoles._fields))


def parse_mark(schema: str | None, mark: str) -> Tenancy:
    """Return what a mark says.

    Raises:
        TenancyError: it is damaged.
    """
    try:
        content = json.loads(mark.removeprefix(MARK))
        tenancy = Tenancy(
            schema, str(content["prefix"]), tuple(content["created_roles"]), tuple(content.get("granted", ()))
        )
        # An invalid prefix is a damaged mark too.
        group_roles(tenancy.prefix)
    except (ValueError, TypeError, KeyError, AttributeError, TenancyError):
        raise TenancyError(
            f"The comment of {qualify(schema, BINDINGS_TABLE)}, which records the state of `syntegra-db tenancy`, is "
            f"damaged. Restore it: COMMENT ON TABLE {qualify(schema, BINDINGS_TABLE)} IS '{Tenancy(schema).mark}'; "
            "with the prefix of the group roles. `disable` then keeps the group roles and their privileges on schemas "
            "and the database, because this comment does not say that `enable` made them."
        ) from None
    return tenancy


def read_tenancy(connection: Connection, *, to_change: bool = False) -> Tenancy | None:
    """Return the state that `syntegra-db tenancy enable` recorded in the current schema, or None if it did not run.

    `to_change` trusts only a superuser and this role: in an empty schema, any role that may create objects there can
    own the version table.

    Raises:
        UntrustedObject: the record belongs to a role that is not trusted.
        TenancyError: the record is damaged.
    """
    from syntegra_db.revisions import VERSION_TABLE

    schema = read_session(connection).schema
    names = {"name": qualify_name(schema, BINDINGS_TABLE), "version": qualify_name(schema, VERSION_TABLE)}
    found = connection.execute(FIND_MARK, names).first()
    if found is None or not (found.mark or "").startswith(MARK):
        return None
    if found.kind != ORDINARY_TABLE or not (found.is_own if to_change else found.is_trusted):
        table = qualify(schema, BINDINGS_TABLE)
        raise UntrustedObject(
            f"{table} says that the tables are protected for each client, but it belongs to {quote(found.owner)}, and "
            f"not to {'this role' if to_change else 'a role that migrates'} or a superuser; nothing was changed. Run "
            "this as that role if you know it; else drop or rename the table."
        )
    return parse_mark(schema, found.mark)
