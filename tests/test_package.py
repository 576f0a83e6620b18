"""The top-level package: its version and `python -m syntegra_db`."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import syntegra_db
from support.commands import ROOT, run, succeed


def test_version_of_package_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert syntegra_db.__version__ == project["version"]


def test_unknown_attribute_of_package_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'syntegra_db' has no attribute 'nonsense'"):
        _ = syntegra_db.nonsense  # type: ignore[attr-defined]  # what the test is about


def test_import_of_package_loads_no_metadata_and_no_dependency() -> None:
    program = (
        "import sys; import syntegra_db;"
        "print([n for n in ('importlib.metadata', 'sqlalchemy', 'alembic', 'psycopg', 'typer') if n in sys.modules])"
    )
    # Without `site`, which may import anything; the checkout is the working directory.
    output = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"


def test_models_need_only_sqlalchemy_and_pgvector() -> None:
    program = """
import sys
allowed = {"sqlalchemy", "pgvector", "greenlet", "typing_extensions", "syntegra_db"}
class Others:
    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package not in allowed | sys.stdlib_module_names and not package.startswith("_"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Others())
import syntegra_db.models
assert syntegra_db.models.Base.metadata.sorted_tables
print({name for name in ("alembic", "numpy", "psycopg", "pydantic", "rich", "typer") if name in sys.modules})
"""
    assert succeed("python", "-c", program) == "set()\n"


def test_restore_loads_no_model() -> None:
    # Loading the models takes a fifth of the start.
    program = "import sys; from syntegra_db.backup import restore; print('sqlalchemy.orm' in sys.modules)"
    assert succeed("python", "-c", program) == "False\n"


def test_python_m_prints_the_same_help_as_the_command() -> None:
    output = succeed("python", "-m", "syntegra_db", "--help")
    assert " upgrade " in output
    assert output.splitlines()[2:] == succeed("syntegra-db", "--help").splitlines()[2:]


def test_python_m_with_error_exits_with_its_status() -> None:
    result = run("python", "-m", "syntegra_db", "status", url="mysql://host/database")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
