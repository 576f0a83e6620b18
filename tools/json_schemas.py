"""Render the JSON Schema of what each command prints with `--json`, and a page about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from syntegra_db.adoption import AdoptionPlan, AdoptionResult
from syntegra_db.backup import RestoredColumns
from syntegra_db.catalog import DriftReport
from syntegra_db.cli.gates import GateResult
from syntegra_db.cli.results import (
    BackupFile,
    BackupList,
    IndexHealthList,
    LocalServer,
    LocalUrl,
    MigrationResult,
    NewPartitionList,
    PartitionList,
    RestoreSummary,
    RollbackSummary,
    SeparationResult,
    StoppedServers,
    UnboundLogin,
)
from syntegra_db.cli.status_result import StatusResult
from syntegra_db.migrations import CreatedPartitions, MigrationPlan
from syntegra_db.models.embeddings import Method
from syntegra_db.recorded_steps import UnfinishedRevision
from syntegra_db.tenancy import Binding, DisableResult, TenancyStatus
from syntegra_db.vectors._index import Calibration, CalibrationPoint
from syntegra_db.vectors.maintenance import IndexHealth, RebuildResult, SearchDefaults
from syntegra_db.vectors.maintenance._resources import IndexSpec
from tools.sections import markdown_table

# By command line, without `syntegra-db` and `--json`.
RESULTS: dict[str, type] = {
    "upgrade": MigrationResult,
    "upgrade --dry-run": MigrationPlan,
    "downgrade": MigrationResult,
    "downgrade --dry-run": MigrationPlan,
    "status": StatusResult,
    "status --check": GateResult,
    "wait": GateResult,
    "verify": DriftReport,
    "backup": BackupFile,
    "backups": BackupList,
    "restore": RestoreSummary,
    "rollback": RollbackSummary,
    "adopt": AdoptionPlan,
    "adopt --apply": AdoptionResult,
    "vectors status": IndexHealthList,
    "vectors rebuild": RebuildResult,
    "partitions list": PartitionList,
    "partitions create": NewPartitionList,
    "tenancy enable": SeparationResult,
    "tenancy disable": DisableResult,
    "tenancy status": TenancyStatus,
    "tenancy bind": Binding,
    "tenancy unbind": UnboundLogin,
    "local start": LocalServer,
    "local stop": StoppedServers,
    "local url": LocalUrl,
}


# Names that the annotations of the classes above use, and that their modules import for type checkers only.
NAMES: dict[str, Any] = {
    "Calibration": Calibration,
    "CalibrationPoint": CalibrationPoint,
    "CreatedPartitions": CreatedPartitions,
    "IndexHealth": IndexHealth,
    "IndexSpec": IndexSpec,
    "Mapping": Mapping,
    "Method": Method,
    "Path": Path,
    "RestoredColumns": RestoredColumns,
    "SearchDefaults": SearchDefaults,
    "UnfinishedRevision": UnfinishedRevision,
    "datetime": datetime,
}
INTRODUCTION = """\
# JSON of the commands

Generated from the code by `make generate`. [json.schema.json](json.schema.json) has the same as JSON Schema (draft
2020-12). [The command line](../guides/command-line.md#json) says when a command prints it. Times are as in RFC 3339, in
UTC.
"""


def result_adapter(command: str) -> TypeAdapter[Any]:
    """Return the adapter that validates what `command` prints."""
    adapter = TypeAdapter[Any](RESULTS[command])
    adapter.rebuild(_types_namespace=NAMES)
    return adapter


def render_schema() -> str:
    """Return one JSON Schema, whose `$defs` have the type of each command; `commands` maps the commands to them."""
    references, schema = schemas()
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps({"$schema": dialect, "commands": references, **schema}, indent=2, ensure_ascii=False) + "\n"


def render_page() -> str:
    """Return docs/reference/json.md."""
    references, schema = schemas()
    commands = [(f"`{name}`", describe_type(reference)) for name, reference in references.items()]
    sections = [INTRODUCTION, markdown_table(("Command", "Prints"), commands)]
    for name, definition in sorted(schema["$defs"].items()):
        fields = [(f"`{field}`", describe_type(value)) for field, value in definition["properties"].items()]
        sections.append(f"## {name}\n\n{definition['description']}\n\n{markdown_table(('Field', 'Value'), fields)}")
    return "\n".join(sections)


def schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the reference to the definition by command, and the schema with all definitions."""
    inputs: list[Any] = [(name, "serialization", result_adapter(name)) for name in RESULTS]
    by_command, schema = TypeAdapter.json_schemas(inputs)
    return {name: by_command[name, "serialization"] for name in RESULTS}, schema


def describe_type(schema: dict[str, Any]) -> str:
    """Return the type of a field in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(describe_type, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {describe_type(schema['items'])}"
    if schema["type"] == "object":
        return f"object, values: {describe_type(schema['additionalProperties'])}"
    known = {"date-time": "time", "path": "path"}
    return known.get(schema.get("format", ""), str(schema["type"]))
