"""Named definitions held against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

INVALID_SUFFIX = " INVALID"


@dataclass(frozen=True)
class DefinitionDiff:
    """Names by what became of them; `renamed` leads from the expected name to the one that is there."""

    missing: tuple[str, ...]
    renamed: dict[str, str]
    changed: tuple[str, ...]
    extra: tuple[str, ...]


def diff_definitions(expected: Mapping[str, str], found: Mapping[str, str]) -> DefinitionDiff:
    """Return what differs between two sets of definitions; the same definition under another name was renamed."""
    extra = [name for name in found if name not in expected]
    missing, renamed = [], {}
    for name in expected:
        if name in found:
            continue
        twin = next((other for other in extra if found[other] == expected[name]), None)
        if twin is None:
            missing.append(name)
        else:
            renamed[name] = twin
            extra.remove(twin)
    changed = [name for name in expected if name in found and found[name] != expected[name]]
    return DefinitionDiff(missing=tuple(missing), renamed=renamed, changed=tuple(changed), extra=tuple(extra))
