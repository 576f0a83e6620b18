"""The difference between two sets of named definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

INVALID_SUFFIX = " INVALID"


@dataclass(frozen=True)
class DefinitionDiff:
    """The names in each group; `renamed` maps a declared name to the installed one."""

    missing: tuple[str, ...]
    renamed: dict[str, str]
    changed: tuple[str, ...]
    extra: tuple[str, ...]


def diff_definitions(declared: Mapping[str, str], installed: Mapping[str, str]) -> DefinitionDiff:
    """Return the difference; an extra object with the definition of a missing one counts as renamed."""
    extra = [name for name in installed if name not in declared]
    missing, renamed = [], {}
    for name in declared:
        if name in installed:
            continue
        other = next((extra_name for extra_name in extra if installed[extra_name] == declared[name]), None)
        if other is None:
            missing.append(name)
        else:
            renamed[name] = other
            extra.remove(other)
    changed = [name for name in declared if name in installed and installed[name] != declared[name]]
    return DefinitionDiff(missing=tuple(missing), renamed=renamed, changed=tuple(changed), extra=tuple(extra))
