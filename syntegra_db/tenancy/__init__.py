"""One client sees its own rows, and only those: row-level security on the tables with `client_id`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syntegra_db.client_policies import GroupRoles, Tenancy, read_tenancy
from syntegra_db.client_setting import SETTING

if TYPE_CHECKING:
    from syntegra_db.tenancy._bindings import Binding, bind, unbind
    from syntegra_db.tenancy._contexts import async_client, client
    from syntegra_db.tenancy._enable import DisableResult, EnableResult, disable, enable
    from syntegra_db.tenancy._logins import async_require_policies, require_policies
    from syntegra_db.tenancy._row_errors import RowHidden
    from syntegra_db.tenancy._sessions import ClientSession, async_session_factory, session_factory
    from syntegra_db.tenancy._state import require_ownership
    from syntegra_db.tenancy._status import TenancyStatus, read_tenancy_status

__all__ = [
    "SETTING",
    "Binding",
    "ClientSession",
    "DisableResult",
    "EnableResult",
    "GroupRoles",
    "RowHidden",
    "Tenancy",
    "TenancyStatus",
    "async_client",
    "async_require_policies",
    "async_session_factory",
    "bind",
    "client",
    "disable",
    "enable",
    "read_tenancy",
    "read_tenancy_status",
    "require_ownership",
    "require_policies",
    "session_factory",
    "unbind",
]

# Services import this package, and its administration loads Alembic; commands do, and the sessions load the models.
_MODULES = {
    "_bindings": ("Binding", "bind", "unbind"),
    "_contexts": ("async_client", "client"),
    "_enable": ("DisableResult", "EnableResult", "disable", "enable"),
    "_logins": ("async_require_policies", "require_policies"),
    "_row_errors": ("RowHidden",),
    "_sessions": ("ClientSession", "async_session_factory", "session_factory"),
    "_state": ("require_ownership",),
    "_status": ("TenancyStatus", "read_tenancy_status"),
}


def __getattr__(name: str) -> Any:
    """Import the module that has `name` when it is used first."""
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
