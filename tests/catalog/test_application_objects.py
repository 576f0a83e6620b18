"""What an application adds to a table is a note if it rejects no insert of the models, and drift if it can reject one.

Each object is drift exactly if it makes one of two inserts fail, or could for other values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import InternalError
from sqlalchemy.orm import Session

from support.drift import drift_report, drifted_objects, fix_statements, run
from syntegra_db.models import Cluster

if TYPE_CHECKING:
    from support.servers import Database

TABLE = "ALTER TABLE clusters"
RAISE = "CREATE FUNCTION app_check(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$"
HARMLESS = {
    "CHECK of NULL": f"{TABLE} ADD code text CHECK (code <> '')",
    "CHECK of a pattern": f"{TABLE} ADD code text CHECK (code ~ '^[A-Z]+$')",
    "CHECK of a length": f"{TABLE} ADD code text CHECK (length(btrim(code)) > 3 AND code = upper(code))",
    "CHECK of the default": f"{TABLE} ADD priority smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 1 AND 5)",
    "CHECK of list": f"{TABLE} ADD state varchar(9) NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'old'))",
    "CHECK that no column is given": f"{TABLE} ADD a text, ADD b text, ADD CHECK (num_nonnulls(a, b) < 2)",
    "CHECK of NULL and a declared column": f"{TABLE} ADD until timestamptz, ADD CHECK (until > created_at)",
    "CHECK that NULL suffices": f"{TABLE} ADD code text, ADD CHECK (code IS NULL OR client_id > 10)",
    "CHECK of two times": f"{TABLE} ADD a timestamptz DEFAULT now(), ADD b timestamptz, ADD CHECK (b > a)",
    "CHECK of a constant": f"{TABLE} ADD CONSTRAINT app_check CHECK (true)",
    "CHECK of a number": f"{TABLE} ADD n numeric CHECK (n / 2 > 1 AND sqrt(n) < 9)",
    "CHECK that is always true": f"{TABLE} ADD CONSTRAINT app_check CHECK (client_id > 0 OR true)",
    "column named as the value of a domain": f"{TABLE} ADD value text CHECK (\"value\" <> '')",
    "column named as a clause": f'{TABLE} ADD "CHECK (client_id)" text CHECK ("CHECK (client_id)" <> \'\')',
    "domain": f"CREATE DOMAIN word AS text CHECK (VALUE <> ''); {TABLE} ADD code word",
    "domain with default": f"CREATE DOMAIN word AS text DEFAULT 'a' NOT NULL; {TABLE} ADD code word",
    "domain with default of the column": f"CREATE DOMAIN word AS text NOT NULL; {TABLE} ADD code word DEFAULT 'a'",
    "domain of a time": f"CREATE DOMAIN stamp AS timestamptz NOT NULL; {TABLE} ADD at stamp DEFAULT now()",
    "array of a domain": f"CREATE DOMAIN word AS text NOT NULL; {TABLE} ADD codes word[]",
    "default of bits": f"{TABLE} ADD b bit(1) NOT NULL DEFAULT B'0', ADD n numeric(3, 1) DEFAULT 9.25",
    "default NULL": f"{TABLE} ADD code varchar(9) DEFAULT NULL",
    "default of a sequence": f"{TABLE} ADD n serial",
    "default of a user": f"{TABLE} ADD by text NOT NULL DEFAULT current_user",
    "default of a date": f"{TABLE} ADD until date NOT NULL DEFAULT current_date + 30",
    "default of a time zone": f"{TABLE} ADD at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')",
    "default of an interval": f"{TABLE} ADD at timestamptz NOT NULL DEFAULT now() + interval '1 day'",
    "default of JSON": f"{TABLE} ADD extra jsonb NOT NULL DEFAULT '{{}}'",
    "default of an ENUM": f"CREATE TYPE app_state AS ENUM ('new', 'old'); {TABLE} ADD state app_state DEFAULT 'new'"
    " NOT NULL CHECK (state <> 'old')",
    "default of an array": f"{TABLE} ADD tags text[] NOT NULL DEFAULT '{{}}' CHECK (cardinality(tags) < 9)",
    "generated": f"{TABLE} ADD key text GENERATED ALWAYS AS (lower(cluster_name)) STORED",
    "generated and required": f"{TABLE} ADD key boolean NOT NULL GENERATED ALWAYS AS (client_id > 9) STORED",
    "generated and cut": f"{TABLE} ADD key varchar(3) GENERATED ALWAYS AS (lower(cluster_name)::varchar(3)) STORED",
    "generated from NULL": f"{TABLE} ADD n integer, ADD half integer GENERATED ALWAYS AS (n / 2) STORED",
    "index of an expression": "CREATE INDEX app_index ON clusters (lower(cluster_name))",
    "index of JSON": "CREATE INDEX app_index ON clusters ((features_json ->> 'x')) WHERE features_json ? 'x'",
    "index of NULL": f"{TABLE} ADD code text; CREATE INDEX app_index ON clusters ((code::integer))",
    "vector index": "CREATE INDEX app_index ON text_summary USING hnsw ((embedding::halfvec(384)) halfvec_l2_ops)",
    "vector index in bits": "CREATE INDEX app_index ON text_summary USING hnsw"
    " ((binary_quantize(embedding)::bit(384)) bit_hamming_ops)",
    "index of no row": f"{TABLE} ADD n integer; CREATE INDEX app_index ON clusters ((1 / cluster_id)) WHERE n > 0",
}
HARMFUL = {
    "CHECK that NULL violates": f"{TABLE} ADD code text CHECK (code IS NOT NULL)",
    "CHECK of NULL as text": f"{TABLE} ADD code text CHECK (coalesce(code, '') <> '')",
    "CHECK of the number of values": f"{TABLE} ADD a text, ADD b text, ADD CHECK (num_nonnulls(a, b) = 1)",
    "CHECK of the default": f"{TABLE} ADD n integer DEFAULT 0 CHECK (n > 0)",
    "CHECK of no column": f"{TABLE} ADD CONSTRAINT app_check CHECK (false)",
    "CHECK of no column, not valid": f"{TABLE} ADD CONSTRAINT app_check CHECK (1 > 2) NOT VALID",
    "CHECK that fails": f"{TABLE} ADD n integer DEFAULT 0 CHECK (1 / n > 0 OR n = 0)",
    "CHECK of a declared column": f"{TABLE} ADD CONSTRAINT app_check CHECK (client_id < 0)",
    "CHECK of both": f"{TABLE} ADD code text, ADD CHECK (code IS NOT NULL OR client_id < 0)",
    "CHECK that fails before NULL": f"{TABLE} ADD code text, ADD CHECK (1 / (client_id - 1) > 0 OR code IS NULL)",
    "CHECK that fails in an argument": f"{TABLE} ADD n integer, ADD CHECK (n > 1 / (client_id - 1))",
    "CHECK of a cast": f"{TABLE} ADD n integer, ADD CHECK (cluster_name::integer > n)",
    "CHECK of the row": f"{TABLE} ADD code text, ADD CONSTRAINT app_check CHECK (clusters IS NOT NULL)",
    "CHECK of a generated column": f"{TABLE} ADD a text,"
    f" ADD b boolean GENERATED ALWAYS AS (a IS NULL) STORED CHECK (NOT b)",
    "CHECK that calls a function": f"{RAISE}; {TABLE} ADD code text CHECK (app_check(code))",
    "CHECK that calls a function with effects": f"{TABLE} ADD code text"
    " CHECK (set_config('app.called', 'yes', false) = code)",
    "column named as text": f'{TABLE} ADD "client_id < 0" text CHECK ("client_id < 0" IS NOT NULL)',
    "domain that is required": f"CREATE DOMAIN word AS text NOT NULL; {TABLE} ADD code word",
    "domain that rejects NULL": f"CREATE DOMAIN word AS text CHECK (VALUE IS NOT NULL); {TABLE} ADD code word",
    "domain of a domain": f"CREATE DOMAIN word AS text NOT NULL; CREATE DOMAIN name_ AS word CHECK (VALUE <> 'a');"
    f"{TABLE} ADD code name_",
    "domain that rejects its default": f"CREATE DOMAIN word AS varchar(9) CHECK (VALUE <> ''); {TABLE} ADD code word"
    " DEFAULT ''",
    "domain with a function": f"{RAISE}; CREATE DOMAIN word AS text CHECK (app_check(VALUE)); {TABLE} ADD code word",
    "required without default": f"{TABLE} ADD code text NOT NULL",
    "required with default NULL": f"{TABLE} ADD code varchar(9) NOT NULL DEFAULT NULL",
    "required with default of NULL": f"{TABLE} ADD code text NOT NULL DEFAULT nullif('a', 'a')",
    "default that fails": f"{TABLE} ADD n integer; {TABLE} ALTER n SET DEFAULT 1 / 0",
    "default that is too long": f"{TABLE} ADD code varchar(3); {TABLE} ALTER code SET DEFAULT repeat('a', 4)",
    "default that is too large": f"{TABLE} ADD n numeric(3, 1); {TABLE} ALTER n SET DEFAULT 1000",
    "default of other bits": f"{TABLE} ADD b bit(3); {TABLE} ALTER b SET DEFAULT B'11'",
    "CHECK of a column generated by a function": f"{RAISE}; {TABLE} ADD code text,"
    " ADD b boolean GENERATED ALWAYS AS (app_check(code)) STORED CONSTRAINT app_check CHECK (b)",
    "default of a function": f"{RAISE}; {TABLE} ADD b boolean; {TABLE} ALTER b SET DEFAULT app_check('a')",
    "default that can fail": f"{TABLE} ADD n integer; {TABLE} ALTER n SET DEFAULT 1 / (random() * 1e-9)::integer",
    "default of a user": f"{TABLE} ADD n integer; {TABLE} ALTER n SET DEFAULT current_user::text::integer",
    "generated and too long": f"{TABLE} ADD key varchar(3) GENERATED ALWAYS AS (lower(cluster_name)) STORED",
    "generated by division": f"{TABLE} ADD n bigint GENERATED ALWAYS AS (1 / (client_id - 1)) STORED",
    "generated by a cast": f"{TABLE} ADD n integer GENERATED ALWAYS AS (cluster_name::integer) STORED",
    "generated and required": f"{TABLE} ADD code text NOT NULL GENERATED ALWAYS AS (nullif(cluster_name, 'a')) STORED",
    "index of a division": "CREATE INDEX app_index ON clusters ((1 / (client_id - 1)))",
    "index of a cast": "CREATE INDEX app_index ON clusters ((cluster_name::integer))",
    "condition of an index": "CREATE INDEX app_index ON clusters (id) WHERE 1 / (client_id - 1) > 0",
    "index of a function": f"{RAISE}; CREATE INDEX app_index ON clusters (app_check(cluster_name))",
    "rule": "CREATE RULE app_rule AS ON INSERT TO clusters DO INSTEAD NOTHING",
    "trigger": "CREATE FUNCTION app_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
    "CREATE TRIGGER app_trigger BEFORE INSERT ON clusters FOR EACH ROW EXECUTE FUNCTION app_trigger()",
    "row-level security": f"{TABLE} ENABLE ROW LEVEL SECURITY",
}

# What `md5` does in FIPS mode, with the oid of a function of PostgreSQL: the server calls the real one without looking.
FIPS_MODE = (
    "SET allow_system_table_mods = on",
    "ALTER FUNCTION pg_catalog.md5(text) RENAME TO md5_of_server",
    """
    CREATE FUNCTION pg_catalog.md5(text) RETURNS text STRICT IMMUTABLE LANGUAGE plpgsql AS
    $$BEGIN RAISE 'could not compute MD5 hash: unsupported' USING ERRCODE = 'internal_error'; END$$
    """,
    "UPDATE pg_catalog.pg_proc SET oid = 11999 WHERE oid = 'pg_catalog.md5(text)'::regprocedure",
)
MD5 = {
    "generated": f"{TABLE} ADD key text GENERATED ALWAYS AS (md5(cluster_name)) STORED",
    "index": "CREATE INDEX app_index ON clusters (md5(cluster_name))",
    "condition of an index": "CREATE INDEX app_index ON clusters (id) WHERE md5(cluster_name) <> 'a'",
    "default": f"{TABLE} ADD code text; {TABLE} ALTER code SET DEFAULT md5('a')",
    "CHECK": f"{TABLE} ADD code text, ADD CHECK (md5(cluster_name) <> code)",
}


def insert_two(database: Database) -> None:
    with Session(database.engine) as session:
        for _ in range(2):
            session.add(Cluster(client_id=1, cluster_id=1, cluster_name="a", features_json={}))
        session.commit()


def _split(statements: str) -> list[str]:
    head, end, rest = statements.rpartition("$$;") if "$$;" in statements else ("", "", statements)
    return [*([head + end] if head else []), *rest.split(";")]


@pytest.mark.parametrize("statements", HARMLESS.values(), ids=HARMLESS)
def test_object_that_rejects_no_insert_is_a_note(database: Database, statements: str) -> None:
    run(database, *statements.split(";"))
    assert drift_report(database).findings == []
    insert_two(database)


@pytest.mark.parametrize("statements", HARMFUL.values(), ids=HARMFUL)
def test_object_that_can_reject_an_insert_is_drift(database: Database, statements: str) -> None:
    run(database, *_split(statements))
    report = drift_report(database)
    assert drifted_objects(report)
    run(database, *fix_statements(report))
    assert drift_report(database).findings == []
    insert_two(database)


@pytest.mark.parametrize("statements", MD5.values(), ids=MD5)
def test_md5_rejects_no_insert(database: Database, statements: str) -> None:
    run(database, *statements.split(";"))
    assert drift_report(database).findings == []
    insert_two(database)


@pytest.mark.parametrize("statements", MD5.values(), ids=MD5)
def test_md5_rejects_inserts_on_a_server_in_fips_mode(database: Database, statements: str) -> None:
    run(database, *FIPS_MODE, *statements.split(";"))
    report = drift_report(database)
    assert drifted_objects(report)
    with pytest.raises(InternalError, match="could not compute MD5 hash"):
        insert_two(database)
    run(database, *fix_statements(report))
    assert drift_report(database).findings == []
    insert_two(database)
