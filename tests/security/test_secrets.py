"""No message, argument list or terminal shows a password, another session's data, or executes its characters."""

from __future__ import annotations

import random
import string
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from psycopg import pq
from sqlalchemy.engine import make_url

from support.commands import run, succeed
from support.revisions import HEAD
from support.servers import ROLE_PASSWORD
from syntegra_db.client_programs import env_with_password, public_conninfo
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import SettingsError, SyntegraDBError, escape_control_characters, server_message
from syntegra_db.migrations import Blocker, read_blockers
from syntegra_db.migrations._blockers import mask_literals
from syntegra_db.settings import describe_database, parse_url

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

SECRET = "HUNTER2"  # noqa: S105  planted in URLs and statements
PASSWORD_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "
URL_FORMS = (
    "postgresql://app:{}@db.example.com:5432/app",
    "postgresql://app:{}@/app?host=/run/postgresql",
    "postgresql://db.example.com:5432/app?user=app&password={}",
    "postgresql:///app?password={}&host=db.example.com&user=app",
)
SEED = 20_240


def printed(url: str) -> str:
    """Return what the package prints about `url`."""
    try:
        parsed = parse_url(url)
    except SettingsError as error:
        return str(error)
    return f"{describe_database(parsed)} {parsed!r} {public_conninfo(parsed)}"


@pytest.mark.parametrize("form", URL_FORMS)
def test_random_password_is_never_printed(form: str) -> None:
    numbers = random.Random(SEED)
    # What is printed anyway, such as the names of options.
    fixed = printed(form.format("x"))
    for _ in range(1_000):
        password = "".join(numbers.choices(PASSWORD_CHARACTERS, k=numbers.randint(4, 24)))
        output = printed(form.format(password))
        pieces = {password[start : start + 4] for start in range(len(password) - 3)}
        assert not [piece for piece in pieces if piece in output and piece not in fixed], (password, output)
        assert parse_url(form.format(quote(password, safe=""))).password == password


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:p@ssHUNTER2@h/d",
        "postgresql://app:p@ss/HUNTER2@h:5432/d",
        "postgresql://app:p#HUNTER2@h:5432/d",
        "postgresql://h:5432/d?user=a&password=p@HUNTER2",
        "postgresql://?password=p@HUNTER2",
        "postgresql://h/d?password=p&HUNTER2=x",
    ],
)
def test_command_with_unescaped_password_does_not_show_it(url: str) -> None:
    result = run("syntegra-db", "status", url=url)
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
    assert SECRET not in result.stderr


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        ("h/d?port=x", "port that is not a number"),
        ("h/d?port=5432,x", "port that is not a number"),
        ("h/d?port=99999", "port that is not a number"),
        ("h:0/d", "port that is not a number"),
        ("/d?host=a&host=b&port=1&port=2&port=3", "different number of ports"),
        ("/d?host=a&host=b&port=1&port=2&port=3&user=x", "different number of ports"),
        ("h/d?user=a&user=b", "same option twice"),
        ("h/d?password=a%00b", "NUL character"),
        ("h%00/d?host=%00", "NUL character"),
    ],
)
def test_invalid_option_is_rejected(end: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse_url(f"postgresql://app:pw@{end}")


@pytest.mark.parametrize("end", ["h/d?port=x", "/d?host=h%ff"])
def test_command_with_invalid_option_is_one_line_and_exits_3(end: str) -> None:
    result = run("syntegra-db", "status", url=f"postgresql://app:pw@{end}")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr


def test_secret_options_are_rejected() -> None:
    marked = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"}
    for option in marked - {"password"} | {"oauth_client_secret", "scram_client_key", "scram_server_key"}:
        # A caller's engine has a URL that `parse_url` did not return.
        with pytest.raises(SettingsError, match=f"secret option {option}") as refused:
            public_conninfo(make_url(f"postgresql://app:pw@h/d?{option}={SECRET}"))
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("command", [("psql", "-c", "SELECT 1"), ("backup",)])
def test_command_with_secret_option_exits_3(command: tuple[str, ...]) -> None:
    result = run("syntegra-db", *command, url=f"postgresql://app:pw@h/d?oauth_client_secret={SECRET}")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
    assert SECRET not in result.stderr


@pytest.mark.parametrize("place", ["authority", "query"])
def test_argument_list_of_psql_has_no_password(database: Database, server: Server, place: str) -> None:
    show_arguments = r"\! tr '\0' ' ' < /proc/$PPID/cmdline"
    with server.role("syntegra_psql") as role:
        url = database.url_as(role)
        if place == "query":
            url = url._replace(password=None).update_query_dict({"password": ROLE_PASSWORD})
        arguments = succeed("syntegra-db", "psql", "-c", show_arguments, url=url.render_as_string(hide_password=False))
    assert "application_name=syntegra_db" in arguments
    assert "ord%" not in arguments
    assert "ord%" not in public_conninfo(url)
    assert env_with_password(url)["PGPASSWORD"] == ROLE_PASSWORD


def test_secret_option_in_service_file_is_accepted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(f"[kpis]\nsslpassword={SECRET}\n", encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    url = database.url.update_query_dict({"service": "kpis"})
    assert f"At revision {HEAD}" in succeed("syntegra-db", "status", url=url.render_as_string(hide_password=False))


@pytest.mark.parametrize(
    ("statement", "masked"),
    [
        ("SELECT 'HUNTER2', N'HUNTER2''HUNTER2'", "SELECT '…', N'…'"),
        ("SELECT E'x\\'HUNTER2', e'\\\\', 'HUNTER2'", "SELECT '…', '…', '…'"),
        ("SELECT U&'HUNTER2', B'101', X'1F'", "SELECT U&'…', B'…', X'…'"),
        ("SELECT $$it's HUNTER2$$, $a$ $$ $b$ HUNTER2 $a$", "SELECT '…', '…'"),
        ("-- it's\nUPDATE t SET a = 'HUNTER2'", "UPDATE t SET a = '…'"),
        ("/* it's /* HUNTER2 */ HUNTER2 */ SELECT 'HUNTER2'", "SELECT '…'"),
        ("SELECT a/**/-- HUNTER2\r, 'HUNTER2'", "SELECT a , '…'"),
        ('SELECT "it\'s", U&"a""b", f$1$x FROM t WHERE a = $1', 'SELECT "it\'s", U&"a""b", f$1$x FROM t WHERE a = $1'),
        ("SELECT 612345678, 5.5e+10, .5, 0xFF, a-1, a1", "SELECT …, …, …, …, a-…, a1"),
        # The end of these is in doubt.
        ("SELECT a, 'HUNTER2", "SELECT …"),
        ("SELECT E'a\\'HUNTER2", "SELECT …"),
        ("SELECT 'a\\', HUNTER2, '", "SELECT …"),
        ("SELECT E'a'\n'b\\', HUNTER2, '", "SELECT …"),
        ("SELECT $a$ HUNTER2 $b$", "SELECT …"),
        ("SELECT $HUNTER2", "SELECT …"),
        ('SELECT "HUNTER2', "SELECT …"),
        ("SELECT 1 /* /* HUNTER2 */", "SELECT …"),
        ("/* HUNTER2", "…"),
        ("COMMIT", "COMMIT"),
    ],
)
def test_literals_and_comments_are_masked(statement: str, masked: str) -> None:
    assert mask_literals(statement) == masked


def random_content(numbers: random.Random, forbidden: str) -> str:
    parts = ["'", "\\", '"', "$", "$$", "--", "/*", "*/", "\n", " ", "E", "$a$", "é", "1", "\\'"]
    chosen = numbers.choices([part for part in parts if not forbidden or forbidden not in part], k=6)
    chosen.insert(numbers.randint(0, 6), SECRET)
    return "".join(chosen)


def random_token(numbers: random.Random) -> str:
    content = random_content(numbers, "")
    prefix = numbers.choice(["", "N", "B", "U&"])
    tokens = (
        prefix + "'" + content.replace("'", "''") + "'",
        numbers.choice("eE") + "'" + content.replace("\\", "\\\\").replace("'", "\\'") + "'",
        f"$t1${content}$t1$",
        f"$${random_content(numbers, '$')}$$",
        f"/*{random_content(numbers, '*')}*/",
        f"/*/*{random_content(numbers, '*')}*/*/",
        "--" + content.replace("\n", " ") + "\n",
    )
    return numbers.choice(tokens)


def test_random_statements_never_show_a_literal() -> None:
    numbers = random.Random(SEED)
    for _ in range(4_000):
        tokens = [random_token(numbers) for _ in range(3)]
        statement = "SELECT " + numbers.choice([" ", ", ", "\n", "||", " a = "]).join(tokens)
        # The server cuts a statement after track_activity_query_size.
        for text in (statement, statement[: numbers.randrange(len(statement))]):
            assert SECRET[:3] not in mask_literals(text), text


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("/* it's */ SELECT 'HUNTER2' FROM clusters", "SELECT '…' FROM clusters"),
        ("SELECT E'x\\'HUNTER2' FROM clusters", "SELECT '…' FROM clusters"),
        ('SELECT 7 AS "\x1b[31m\u202e" FROM clusters', 'SELECT … AS "\\u001b[31m\\u202e" FROM clusters'),
    ],
)
def test_statement_of_blocking_session_is_masked(database: Database, statement: str, shown: str) -> None:
    with database.connect() as holder, database.connect() as waiting, unpooled_engine(database.url).connect() as reader:
        pid = waiting.info.backend_pid
        with holder.transaction():
            holder.execute("LOCK TABLE clusters")
            holder.execute(statement.encode())
            waits = threading.Thread(target=waiting.execute, args=("DELETE FROM clusters",))
            waits.start()
            blockers: tuple[Blocker, ...] = ()
            while not blockers and waits.is_alive():
                blockers = read_blockers(reader, pid)
                reader.rollback()
        waits.join()
    assert blockers
    assert str(blockers[0]).endswith(f": {shown}")


@pytest.mark.parametrize(
    ("character", "escaped"),
    [("\x1b", "\\u001b"), ("\x9b", "\\u009b"), ("\u202e", "\\u202e"), ("\u2028", "\\u2028"), ("\x7f", "\\u007f")],
)
def test_control_characters_are_escaped_in_messages(character: str, escaped: str) -> None:
    text = f"año {character}[31m"
    for output in (str(SyntegraDBError(text)), server_message(ValueError(text)), escape_control_characters(text)):
        assert output == f"año {escaped}[31m"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_control_characters_of_names_are_escaped(database: Database, options: tuple[str, ...]) -> None:
    database.execute('ALTER TABLE clusters ADD COLUMN "\x1b]0;owned\x07\x9b\u202e" text NOT NULL')
    result = run("syntegra-db", "verify", *options, url=database.environment_url)
    assert result.returncode == 1, result.stderr
    assert "owned" in result.stdout
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(result.stdout)
