"""The setting that says which client a transaction works for, and the conditions of the policies on its rows."""

from __future__ import annotations

SETTING = "syntegra.client_id"
"""The setting of PostgreSQL with the client of the transaction, which the policies read."""
# A row belongs to the client in this column; a table without it is for no service unless it is declared as shared.
CLIENT_COLUMN = "client_id"
LOOKUP_FUNCTION = "bound_client_id"
# As the server prints them; `{lookup}` is the name of the function. A subselect or a function around the setting would
# hide the client from the planner's estimates.
OWN_ROWS = f"({CLIENT_COLUMN} = (NULLIF(current_setting('{SETTING}'::text, true), ''::text))::bigint)"
BOUND_ROWS = f"({CLIENT_COLUMN} = {{lookup}}())"
ALL_ROWS = "true"
