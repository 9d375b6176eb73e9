"""The server's description as OpenAPI 3.1, derived from its routes and the types of their bodies."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.server.problems import ErrorBody

REFERENCE = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A kind of request."""

    method: str
    paths: tuple[str, ...]
    """The first one is described; the others are the same by older names."""
    handler: Any
    """An `async def` with a docstring."""
    takes: Any = None
    """Type of its body."""
    gives: Any = None
    """Type of what it answers with; None where that is not JSON."""
    streams: Any = None
    """Type of the events of its stream."""
    uploads: bool = False
    """Whether its body is a form with a file."""


@cache
def describe(endpoints: tuple[Endpoint, ...]) -> bytes:
    """The document."""
    types = [ErrorBody]
    for each in endpoints:
        types += [type_ for type_ in (each.takes, each.gives, each.streams) if type_ is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    found = {id(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for each in endpoints:
        paths.setdefault(each.paths[0].replace(":path}", "}"), {})[each.method.lower()] = _operation(each, found)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "smol-edge",
                "version": version("smol-edge"),
                "description": "Small vision-language models on this machine, in the protocol of OpenAI's clients.",
            },
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{}, {"key": []}],
        }
    )


def serve(endpoints: tuple[Endpoint, ...]) -> Endpoint:
    """GET /openapi.json for these endpoints."""

    async def openapi(_: Request) -> Response:
        """This description."""
        return Response(describe(endpoints), media_type="application/json")

    return Endpoint("GET", ("/openapi.json",), openapi)


def _operation(endpoint: Endpoint, schemas: dict[int, Any]) -> dict[str, Any]:
    def content(type_: Any, media_type: str = "application/json") -> dict[str, Any]:
        return {media_type: {"schema": schemas[id(type_)] if type_ is not None else {}}}

    answer = content(endpoint.gives) if endpoint.gives is not None else {"text/plain": {"schema": {"type": "string"}}}
    if endpoint.streams is not None:
        answer |= content(endpoint.streams, "text/event-stream")
    operation: dict[str, Any] = {
        "summary": endpoint.handler.__doc__.splitlines()[0],
        "operationId": endpoint.handler.__name__,
        "responses": {
            "200": {"description": "The answer.", "content": answer},
            "default": {"description": "What is wrong, as OpenAI words it.", "content": content(ErrorBody)},
        },
    }
    if "{" in endpoint.paths[0]:
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if endpoint.takes is not None:
        operation["requestBody"] = {"required": True, "content": content(endpoint.takes)}
    if endpoint.uploads:
        form = {
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}},
        }
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return operation
