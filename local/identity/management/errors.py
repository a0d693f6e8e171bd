"""The errors of the Management API, in Auth0's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

_TYPES = {
    "string_type": "string",
    "int_type": "integer",
    "bool_type": "boolean",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "list_type": "array",
    "int_parsing": "integer",
    "bool_parsing": "boolean",
}
_FOUND = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object"}


class ManagementError(Exception):
    """An error in a Management API request.

    Args:
        status: The HTTP status.
        message: What happened.
        code: The error code for programs; Auth0 omits it for token errors.
        headers: Additional headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "statusCode": status,
            "error": HTTPStatus(status).phrase,
            "message": message,
        }
        if code is not None:
            self.body["errorCode"] = code


def no_user() -> ManagementError:
    """Return the error for a user that does not exist."""
    return ManagementError(404, "The user does not exist.", "inexistent_user")


def no_organization() -> ManagementError:
    """Return the error for an organization that does not exist."""
    return ManagementError(
        404, "No organization found by that id or name", "inexistent_organization"
    )


def no_role() -> ManagementError:
    """Return the error for a role that does not exist."""
    return ManagementError(404, "The role does not exist.", "inexistent_role")


def bad_body(message: str) -> ManagementError:
    """Return the error for an invalid body."""
    return ManagementError(400, message, "invalid_body")


def bad_query(message: str) -> ManagementError:
    """Return the error for an invalid query."""
    return ManagementError(400, message, "invalid_query_string")


def not_valid(problems: Sequence[Mapping[str, Any]]) -> ManagementError:
    """Return the error for the first problem that pydantic found, in Auth0's wording."""
    problem = problems[0]
    place, *path = problem["loc"]
    if problem["type"] == "json_invalid":
        return ManagementError(400, "Invalid request payload JSON format")
    words = _words(problem, path)
    if place == "body":
        return bad_body(f"Payload validation error: {words}")
    if place == "query":
        return bad_query(f"Query validation error: {words}")
    return ManagementError(400, f"Path validation error: {words}", "invalid_uri")


def _words(problem: Mapping[str, Any], path: list[str | int]) -> str:
    where = ".".join(map(str, path))
    parent = ".".join(map(str, path[:-1]))
    on_parent = f" on property {parent}" if parent else ""
    kind = problem["type"]
    if kind == "missing" and not path:
        return "'Expected type object but found no body'."
    if kind == "missing":
        return f"'Missing required property: {path[-1]}'{on_parent}."
    if kind == "extra_forbidden":
        return f"'Additional properties not allowed: {path[-1]}'{on_parent}."
    if kind in _TYPES:
        found = _FOUND.get(type(problem["input"]), "array")
        found = "null" if problem["input"] is None else found
        return f"'Expected type {_TYPES[kind]} but found type {found}' on property {where}."
    return f"'{problem['msg']}' on property {where}."
