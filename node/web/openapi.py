"""The OpenAPI document of the JSON API, generated from its operations, so that the two cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from node.web.api_operation import Operation


def describe(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations."""
    adapters = [
        (kind.__name__, mode, TypeAdapter(kind))
        for operation in operations
        for kind, mode in ((operation.answer, "serialization"), (operation.body, "validation"))
        if kind is not None
    ]
    unique = {name: (name, mode, adapter) for name, mode, adapter in adapters}
    references, definitions = TypeAdapter.json_schemas(
        list(unique.values()),  # type: ignore[arg-type]
        ref_template="#/components/schemas/{model}",
    )
    schema_of = {str(name): schema for (name, _), schema in references.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace(":row}", "}").replace(":str}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, schema_of)
    problem = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pleura",
            "version": "1",
            "description": "Worklist and results of a Pleura node. Research use only: not a medical device.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}) | {"Problem": problem},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(operation: Operation, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answers: dict[str, Any] = {
        "200": {
            "description": operation.answer.__doc__,
            "content": {"application/json": {"schema": schema_of[operation.answer.__name__]}},
        }
    }
    reasons = {"400": "Not JSON", "401": "No token", "403": "Not this role", "404": "No such record"}
    reasons |= {"409": "Not possible in this state", "413": "Too large", "422": "Invalid value"}
    answers |= {code: {"description": text, "content": problem} for code, text in reasons.items()}
    made: dict[str, Any] = {
        "summary": operation.summary,
        "description": f"Least role: {operation.role.value}.",
        "parameters": [*_path_parameters(operation.path), *_query_parameters(operation.query)],
        "responses": answers,
    }
    if operation.body is not None:
        content = {"application/json": {"schema": schema_of[operation.body.__name__]}}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _path_parameters(path: str) -> list[dict[str, Any]]:
    number = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
    kinds = {":row}": number, ":str}": {"type": "string", "minLength": 1, "pattern": "^[a-z0-9._-]{1,64}$"}}
    return [
        {"name": part[1:-5], "in": "path", "required": True, "schema": kinds[part[-5:]]}
        for part in path.split("/")
        if part[-5:] in kinds
    ]


def _query_parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    definitions = schema.get("$defs", {})
    parameters = []
    for name, value in schema.get("properties", {}).items():
        inner = dict(value)
        reference = inner.pop("$ref", None)
        if reference is not None:
            inner = definitions[reference.rsplit("/", 1)[1]] | inner
        described = inner.pop("description", "")
        parameters.append({"name": name, "in": "query", "required": False, "description": described, "schema": inner})
    return parameters
