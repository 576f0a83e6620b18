"""One client sees its own rows, and only those: row-level security on the tables with `client_id`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syntegra_db.client_policies import SETTING, GroupRoles, Tenancy, read_tenancy

if TYPE_CHECKING:
    from syntegra_db.tenancy._bindings import Binding, bind, unbind
    from syntegra_db.tenancy._enable import DisableResult, EnableResult, disable, enable
    from syntegra_db.tenancy._status import TenancyStatus, read_tenancy_status

__all__ = [
    "SETTING",
    "Binding",
    "DisableResult",
    "EnableResult",
    "GroupRoles",
    "Tenancy",
    "TenancyStatus",
    "bind",
    "disable",
    "enable",
    "read_tenancy",
    "read_tenancy_status",
    "unbind",
]

# Services import this package, and its administration loads Alembic.
_ADMINISTRATION = {
    "_bindings": ("Binding", "bind", "unbind"),
    "_enable": ("DisableResult", "EnableResult", "disable", "enable"),
    "_status": ("TenancyStatus", "read_tenancy_status"),
}


def __getattr__(name: str) -> Any:
    """Import the part of the administration that has `name` when it is used first."""
    for module, names in _ADMINISTRATION.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
