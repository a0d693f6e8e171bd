"""The types and base classes of all requests and responses.

Requests are parsed as leniently as by the live service: strings are stripped, numbers may be
strings, booleans ``"yes"``, ``"on"``, or 1, and dates seconds; unknown keys are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from aspen.api.limits import MAX_FINDINGS, MAX_NAMES, MAX_SAMPLES

_SLICE = 500
_MAX_ID = 2**31 - 1
_DAY = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_LONGEST_DAY = len("2021-01-31")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d*)?", re.ASCII)
_MILLISECONDS = 2e10  # larger numbers are milliseconds


def _read_date(value: Any) -> date:
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= _LONGEST_DAY and (day := _read_day(text)):
            return day
        if not _NUMBER.fullmatch(text):
            raise PydanticCustomError("value_error.date", "invalid date format")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("value_error.date", "invalid date format")
    while abs(value) > _MILLISECONDS:
        value /= 1000
    try:
        return datetime.fromtimestamp(value, UTC).date()
    except (ValueError, OverflowError) as error:  # NaN, or out of the range of dates
        raise PydanticCustomError("value_error.date", "invalid date format") from error


@lru_cache(maxsize=10_000)  # thousands of samples often share a few dates
def _read_day(text: str) -> date | None:
    if not _DAY.fullmatch(text):
        return None
    try:
        return date(*map(int, text.split("-")))
    except ValueError as error:
        raise PydanticCustomError("value_error.date", "invalid date format") from error


def _in_utc(value: datetime) -> datetime:
    """Return the time in UTC; the database stores UTC without a time zone."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Date = Annotated[
    date, BeforeValidator(_read_date), WithJsonSchema({"type": "string", "format": "date"})
]
"""A date in a request: ``2021-01-31`` or seconds since 1970, without a time of day."""

RowId = Annotated[int, Field(le=_MAX_ID, ge=-_MAX_ID - 1)]
"""A row ID in a request, within the range of PostgreSQL's integer."""

StrictText = Annotated[str, StringConstraints(strict=True)]
"""A string in a request, for which numbers are not accepted."""

UtcTime = Annotated[
    datetime,
    AfterValidator(_in_utc),
    PlainSerializer(lambda value: value.isoformat(timespec="seconds"), when_used="json"),
]
"""A time in a response: ``2021-01-31T12:00:00+00:00``."""


def _check_count(most: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, list) and len(value) > most:
            context = {"max_length": most, "actual_length": len(value)}
            message = "List should have at most {max_length} items, not {actual_length}"
            raise PydanticCustomError("too_long", message, context)
        return value

    return check


def _check_in_slices(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Check the items in slices, and stop once the maximum number of errors is found.

    Finding and describing all 200,000 errors of 50,000 empty objects takes seconds, which would
    block the event loop.
    """
    if not isinstance(value, list) or len(value) <= _SLICE:
        return validate(value)
    checked: list[Any] = []
    errors: list[InitErrorDetails] = []
    for start in range(0, len(value), _SLICE):
        try:
            checked += validate(value[start : start + _SLICE])
        except ValidationError as error:
            errors += (_moved(one, start) for one in error.errors(include_url=False))
        end = min(start + _SLICE, len(value))
        if len(errors) >= MAX_FINDINGS and end < len(value):
            left = PydanticCustomError(
                "not_checked", "Items from index {first} on were not checked", {"first": end}
            )
            errors.insert(0, InitErrorDetails(type=left, input=None))
            break
    if errors:
        raise ValidationError.from_exception_data("items", errors)
    return checked


def _moved(error: ErrorDetails, by: int) -> InitErrorDetails:
    """Return an item's error with its index in the whole list."""
    # An error given by type would be formatted again, which requires its full context.
    custom = PydanticCustomError(error["type"], error["msg"], error.get("ctx"))
    index, *rest = error["loc"]
    return InitErrorDetails(type=custom, loc=(cast("int", index) + by, *rest), input=error["input"])


_Item = TypeVar("_Item")
Samples = Annotated[
    list[_Item], WrapValidator(_check_in_slices), BeforeValidator(_check_count(MAX_SAMPLES))
]
"""A list of samples in a request, with at most `MAX_SAMPLES`."""
Names = Annotated[
    list[_Item], WrapValidator(_check_in_slices), BeforeValidator(_check_count(MAX_NAMES))
]
"""A list of identifiers or IDs in a request, with at most `MAX_NAMES`."""


class BaseRequest(BaseModel):
    """The base class of request bodies."""

    model_config = ConfigDict(
        extra="ignore", str_strip_whitespace=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class BaseResponse(BaseModel):
    """The base class of responses, created from dicts or rows (``from_attributes``)."""

    model_config = ConfigDict(from_attributes=True)
