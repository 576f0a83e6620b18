"""Which functions stored expressions call, and what is known of them: an expression of another role is never run.

An expression is run or planned only if it calls nothing but functions of PostgreSQL itself that have no effects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from psycopg.errors import InternalError_
from sqlalchemy.exc import InternalError

from syntegra_db.sql import catalog_query, execute_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

FUNCTION = re.compile(r" :(?:funcid|opfuncid) (\d+)")
# An explicit cast has the format 1.
CALL = re.compile(r"\{FUNCEXPR :funcid (\d+) :funcresulttype \d+ :funcretset \w+ :funcvariadic \w+ :funcformat (\d)")
EXPLICIT = "1"
# They reject longer values, but an explicit cast cuts them.
LENGTH_FUNCTIONS = ("bit", "bpchar", "varbit", "varchar")
NODE = re.compile(r"\{([A-Z]+)")
ATTRIBUTE = re.compile(r" :varattno (-?\d+)")
RESULT_TYPE = re.compile(r" :resulttype (\d+)")
# `text` and `varchar`: the text of a value always exists.
TEXT_TYPES = {"25", "1043"}
FIRST_USER_TYPE = 12_000
DOMAIN_CAST = re.compile(r"\{COERCETODOMAIN :arg (?P<argument>.*) :resulttype .* :coercionformat (?P<format>\d) .*\}")
IMPLICIT = "2"
NULL_CONSTANT = " :constisnull true"

# Nodes that fail for no value, in the names of PostgreSQL 15 and of later versions.
STRICT_NODES = {"VAR", "CONST", "OPEXPR", "FUNCEXPR", "RELABELTYPE", "COERCEVIAIO", "SQLVALUEFUNCTION", "COLLATEEXPR"}
TOTAL_NODES = {
    *STRICT_NODES,
    *("ARRAY", "ARRAYEXPR", "BOOLEANTEST", "BOOLEXPR", "CASE", "CASEEXPR", "CASETESTEXPR", "CASEWHEN", "COALESCE"),
    *("COALESCEEXPR", "COERCETODOMAINVALUE", "COLLATE", "DISTINCTEXPR", "MINMAX", "MINMAXEXPR", "NULLIFEXPR"),
    *("NULLTEST", "SCALARARRAYOPEXPR", "WHEN"),
}
# Nodes that call only functions that the expression names, or those of a type of PostgreSQL.
CATALOG_NODES = {*TOTAL_NODES, "ARRAYCOERCEEXPR", "FIELDSELECT", "SUBSCRIPTINGREF"}

# Functions that fail for no argument, besides the comparisons; the limit of 1 GB for any value is not counted.
TOTAL = (
    *("bit_length(text)", "btrim(text)", "btrim(text,text)", "char_length(text)", "character_length(text)"),
    *("left(text,integer)", "length(bytea)", "length(text)", "lower(text)", "ltrim(text)", "ltrim(text,text)"),
    *("md5(text)", "octet_length(bytea)", "octet_length(text)", "reverse(text)", "right(text,integer)", "rtrim(text)"),
    *("rtrim(text,text)", "starts_with(text,text)", "strpos(text,text)", "textcat(text,text)", "upper(text)"),
    *("sha256(bytea)", "hashtext(text)", '"text"(boolean)', '"text"(character)', "numeric(integer)", "numeric(bigint)"),
    *("int4(smallint)", "int8(integer)", "int8(smallint)", "float8(integer)", "float8(real)", "float8(smallint)"),
    *("jsonb_typeof(jsonb)", "jsonb_contains(jsonb,jsonb)", "jsonb_contained(jsonb,jsonb)", "jsonb_exists(jsonb,text)"),
    *("array_ndims(anyarray)", "cardinality(anyarray)", "arraycontains(anyarray,anyarray)"),
    *("array_length(anyarray,integer)", "jsonb_array_element(jsonb,integer)"),
    *("jsonb_array_element_text(jsonb,integer)", "jsonb_extract_path(jsonb,text[])"),
    *("jsonb_extract_path_text(jsonb,text[])", "jsonb_object_field(jsonb,text)"),
    *("jsonb_object_field_text(jsonb,text)", "now()", "statement_timestamp()", "transaction_timestamp()"),
    "clock_timestamp()",
)
# Of them, those that can be NULL for arguments that are not.
NULLABLE = ("array_ndims", "array_length", "jsonb_array_element", "jsonb_extract_path", "jsonb_object_field")
# Further functions that a default can call, because its arguments are constants or the time.
TOTAL_IN_DEFAULT = (
    *("nextval(regclass)", "random()", "gen_random_uuid()", "uuidv4()", "uuidv7()", "uuidv7(interval)", "timeofday()"),
    *("int4(bigint)", "int2(bigint)", "pg_backend_pid()", "txid_current()", "pg_current_xact_id()"),
    *("date(timestamptz)", "date_trunc(text,timestamptz)", '"time"(timestamptz)', '"timestamp"(timestamptz)'),
    *("timestamptz_mi_interval(timestamptz,interval)", "timestamptz_pl_interval(timestamptz,interval)"),
    *("timestamptz(timestamp)", "timestamptz(date)", "to_char(timestamptz,text)"),
)
# It fails for every argument on a server whose OpenSSL is in FIPS mode.
MD5 = "md5"
UNIQUE_FUNCTIONS = ("gen_random_uuid", "uuidv4", "uuidv7", "uuid_generate_v1", "uuid_generate_v4")
# Functions of extensions; the vector index itself uses the cast to `halfvec`.
TOTAL_OF_EXTENSIONS = {
    "vector": ("binary_quantize", "l2_norm", "vector_dims", "vector_norm", "vector_to_halfvec", "halfvec"),
    "uuid-ossp": ("uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4"),
}

# PostgreSQL's own objects have an oid below 12000.
FUNCTIONS = catalog_query("""
    SELECT p.oid::bigint, proname AS name, p.oid < 12000 AS is_builtin, provolatile::text AS volatility,
           p.oid < 12000
             AND (p.oid IN (SELECT to_regprocedure(name) FROM unnest(CAST(:total AS text[])) AS name)
                  OR (proname !~ '^record'
                      AND p.oid IN (SELECT oprcode FROM pg_operator AS o
                                    JOIN pg_amop ON amopopr IN (o.oid, o.oprnegate) WHERE amopmethod = 403)))
             OR (extname = 'vector' AND proname = ANY (CAST(:of_vector AS text[]))) AS is_total,
           (p.oid < 12000 AND p.oid IN (SELECT to_regprocedure(name) FROM unnest(CAST(:in_default AS text[])) AS name))
             OR (extname = 'uuid-ossp' AND proname = ANY (CAST(:of_uuid AS text[]))) AS is_total_in_default
    FROM pg_proc AS p
    LEFT JOIN (pg_depend JOIN pg_extension AS e ON refclassid = 'pg_extension'::regclass AND refobjid = e.oid)
      ON classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e'
    WHERE p.oid = ANY (CAST(:functions AS oid[]))
""")


@dataclass(frozen=True)
class Function:
    """What is known of a function; `is_total` means that it fails for no argument, and has no effects."""

    name: str
    is_builtin: bool
    volatility: str
    is_total: bool
    is_total_in_default: bool


@dataclass(frozen=True)
class Expression:
    """A stored expression: its text, and the tree of its nodes as the server stores it."""

    text: str
    tree: str
    functions: Mapping[int, Function] = field(repr=False, compare=False)

    @cached_property
    def called(self) -> tuple[Function | None, ...]:
        """The functions that it calls, with None for one that was dropped."""
        return tuple(self.functions.get(oid) for oid in function_oids([self.tree]))

    @cached_property
    def attributes(self) -> frozenset[int]:
        """The numbers of the columns that it references; 0 is the whole row, and system columns are negative."""
        return frozenset(int(number) for number in ATTRIBUTE.findall(self.tree))

    @cached_property
    def is_total(self) -> bool:
        """Whether it fails for no row."""
        implicit = {
            self.functions.get(int(oid)) for oid, call_format in CALL.findall(self.tree) if call_format != EXPLICIT
        }
        return self._has_nodes(TOTAL_NODES) and all(
            function
            and (
                function.is_total
                or (function.is_builtin and function.name in LENGTH_FUNCTIONS and function not in implicit)
            )
            for function in self.called
        )

    @cached_property
    def is_total_default(self) -> bool:
        """Whether it fails for no row if its arguments are constants or the time, as in a default."""
        return self._has_nodes(TOTAL_NODES) and all(
            function and (function.is_total or function.is_total_in_default) for function in self.called
        )

    @cached_property
    def is_constant(self) -> bool:
        """Whether it has the same value in each row if its columns have, and running it has no effects."""
        return (
            "SQLVALUEFUNCTION" not in self._nodes
            and self.is_safe
            and not any(function and function.volatility != "i" for function in self.called)
        )

    @cached_property
    def is_safe(self) -> bool:
        """Whether it calls only functions of PostgreSQL that have no effects."""
        return (
            self._nodes <= CATALOG_NODES
            and self._has_builtin_types()
            and all(
                function and function.is_builtin and (function.is_total or function.volatility == "i")
                for function in self.called
            )
        )

    @cached_property
    def is_never_null(self) -> bool:
        """Whether it is NULL only if one of its columns is."""
        return (
            self._nodes <= STRICT_NODES
            and NULL_CONSTANT not in self.tree
            and not any(function is None or function.name.startswith(NULLABLE) for function in self.called)
        )

    @cached_property
    def is_unique(self) -> bool:
        """Whether each evaluation gives another value."""
        return self._nodes == {"FUNCEXPR"} and all(
            function is not None and function.name in UNIQUE_FUNCTIONS for function in self.called
        )

    @cached_property
    def _nodes(self) -> set[str]:
        return set(NODE.findall(self.tree))

    def _has_nodes(self, nodes: set[str]) -> bool:
        return self._nodes <= nodes and (
            "COERCEVIAIO" not in self._nodes or set(RESULT_TYPE.findall(self.tree)) <= TEXT_TYPES
        )

    def _has_builtin_types(self) -> bool:
        return all(int(oid) < FIRST_USER_TYPE for oid in RESULT_TYPE.findall(self.tree))


def without_domain(tree: str, *, is_explicit: bool) -> str:
    """Return the tree of a default without its cast to a domain; the text has the cast only if it is explicit."""
    cast = DOMAIN_CAST.fullmatch(tree)
    return cast["argument"] if cast and (is_explicit or cast["format"] == IMPLICIT) else tree


def function_oids(trees: Iterable[str]) -> list[int]:
    """Return the oids of the functions that expressions call, also through operators."""
    return sorted({int(oid) for tree in trees for oid in FUNCTION.findall(tree)})


def read_functions(connection: Connection, trees: Iterable[str]) -> dict[int, Function]:
    """Return what is known of the functions that expressions call, by oid; the search_path must be `CATALOG_ONLY`."""
    oids = function_oids(trees)
    if not oids:
        return {}
    rows = connection.execute(
        FUNCTIONS,
        {
            "functions": oids,
            "total": list(TOTAL),
            "in_default": list(TOTAL_IN_DEFAULT),
            "of_vector": list(TOTAL_OF_EXTENSIONS["vector"]),
            "of_uuid": list(TOTAL_OF_EXTENSIONS["uuid-ossp"]),
        },
    )
    functions = {row.oid: Function(*tuple(row)[1:]) for row in rows}
    digests = {oid: function for oid, function in functions.items() if function.is_builtin and function.name == MD5}
    if digests and not _computes_md5(connection):
        # It is neither run nor planned: the error would be an internal one of the server.
        functions |= {oid: replace(function, is_builtin=False, is_total=False) for oid, function in digests.items()}
    return functions


def _computes_md5(connection: Connection) -> bool:
    savepoint = connection.begin_nested()
    try:
        execute_raw(connection, "SELECT pg_catalog.md5('')")
    except InternalError as error:
        if type(error.orig) is not InternalError_:
            raise
        return False
    finally:
        savepoint.rollback()
    return True
