"""Render docs/api.md, the public names of each package, from their `__all__` and docstrings."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

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
    "migrations",
    "revisions",
    "catalog",
    "backup",
    "adoption",
    "settings",
    "connections",
    "embedded",
)
INTRODUCTION = """\
# Public names

Generated from the code by `make generate`: change a docstring or an `__all__`, not this file. All other names are
internal. The exceptions are in `syntegra_db.errors`; the [README](../README.md#exit-statuses) lists them.
"""


def render() -> str:
    """Return the page: one table of names, kinds and docstrings' first lines per module."""
    sections = [INTRODUCTION]
    for name in MODULES:
        module = importlib.import_module(f"syntegra_db.{name}")
        rows = [(f"`{public}`", kind(value), first_line(value)) for public, value in public_names(module)]
        table = markdown_table(("Name", "Kind", "Purpose"), rows)
        sections.append(f"## `{module.__name__}`\n\n{first_line(module)}\n\n{table}")
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
    return "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else "value"


def first_line(value: object) -> str:
    """Return the first line of the docstring of a module, class or function, or nothing for another value."""
    has_own_docstring = inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value)
    return (inspect.getdoc(value) or "").partition("\n")[0].replace("|", "\\|") if has_own_docstring else ""
