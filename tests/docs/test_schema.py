"""docs/schema.md: what the generated page shows of the models."""

from __future__ import annotations

import pytest

from tools import schema_docs


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("| `frequency` | integer | no | `'0'` |", id="column type and default"),
        pytest.param("| `metadata` | jsonb | yes |", id="nullable column"),
        pytest.param("ivfflat (embedding vector_cosine_ops)", id="index method"),
        pytest.param("| `anomaly_severity` | `low`, `medium`, `high`, `critical` |", id="labels in their order"),
        pytest.param('data_sources |o--o{ kpi_summary : "client_id, source_id"', id="one optional relationship"),
        pytest.param("(in Python: `metadata_`)", id="name of the attribute"),
    ],
)
def test_schema_page_shows_definition_from_models(line: str) -> None:
    assert line in schema_docs.render()


def test_schema_page_draws_each_foreign_key_once() -> None:
    drawn = [line for line in schema_docs.diagram().splitlines() if "--" in line]
    assert len(drawn) == len(set(drawn)) == 4
