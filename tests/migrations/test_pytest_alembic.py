"""pytest-alembic's own set of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)

from support.commands import ROOT

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from support.servers import Database

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]


@pytest.fixture
def alembic_config() -> dict[str, Any]:
    return {"file": str(ROOT / "alembic.ini"), "script_location": str(ROOT / "alembic")}


@pytest.fixture
def alembic_engine(empty_database: Database) -> Engine:
    return empty_database.engine
