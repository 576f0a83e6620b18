"""Render docs/api.md, the public names of each package, from their `__all__` and docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
from itertools import pairwise
from typing import TYPE_CHECKING

from _pytest.fixtures import FixtureFunctionDefinition

from tools.sections import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MODULES = (
    "models",
    "database",
    "bulk",
    "vectors",
    "vectors.maintenance",
    "tenancy",
    "migrations",
    "revisions",
    "catalog",
    "backup",
    "adoption",
    "settings",
    "connections",
    "embedded",
    "testing",
    "testing.factories",
)
INTRODUCTION = """\
# Public names

Generated from the code by `make generate`: change a docstring or an `__all__`, not this file. All other names are
internal. The exceptions are in `syntegra_db.errors`; [exit statuses](exit-statuses.md) lists them.
"""


def render() -> str:
    """Return the page: one table of names, kinds and docstrings' first lines per module.

    Raises:
        ValueError: a public name has no description.
    """
    sections = [INTRODUCTION]
    for name in MODULES:
        module = importlib.import_module(f"syntegra_db.{name}")
        rows = [(f"`{public}`", kind(value), describe(module, public)) for public, value in public_names(module)]
        table = markdown_table(("Name", "Kind", "Purpose"), rows)
        sections.append(f"## `{module.__name__}`\n\n{first_line(inspect.getdoc(module))}\n\n{table}")
    return "\n".join(sections)


def public_names(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield the names of `__all__`, or the functions and classes that a module without one defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    for name in sorted(names, key=str.lower):
        yield name, getattr(module, name)


def kind(value: object) -> str:
    """Return what `value` is, in one word."""
    if isinstance(value, FixtureFunctionDefinition):
        return "fixture"
    return "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else "value"


def describe(module: ModuleType, name: str) -> str:
    """Return the first line of the docstring of a public name.

    Raises:
        ValueError: it has none.
    """
    value = getattr(module, name)
    text = first_line(value.__doc__ if kind(value) != "value" else constant_docstring(module, name))
    if not text:
        raise ValueError(
            f"{module.__name__}.{name} is public and has no description. Write a docstring; that of a constant is a "
            "string in the line after it."
        )
    return text


def constant_docstring(module: ModuleType, name: str) -> str | None:
    """Return the string in the line after the assignment of `name`, in the module that `module` imports it from."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, following in pairwise((*body, ast.Pass())):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                if name == (alias.asname or alias.name):
                    return constant_docstring(importlib.import_module(statement.module), alias.name)
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.get_docstring(ast.Module([following], []))
    return None


def first_line(docstring: str | None) -> str:
    """Return the first line of a docstring for a table, empty if there is none."""
    return inspect.cleandoc(docstring or "").partition("\n")[0].replace("|", "\\|")
