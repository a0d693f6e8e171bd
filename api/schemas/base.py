"""What all requests and answers share.

Requests are read as leniently as the live service reads them: strings are stripped, numbers may
come as strings, truth as ``"yes"``, ``"on"`` or 1, dates as seconds; unknown keys are ignored.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

_MAX_ID = 2**31 - 1
_DAY = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_LONGEST_DAY = len("2021-01-31")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d*)?", re.ASCII)
_MILLISECONDS = 2e10  # a larger number of seconds is one of milliseconds


def _read_date(value: Any) -> date:
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= _LONGEST_DAY and (day := _read_day(text)):
            return day
        if not _NUMBER.fullmatch(text):
            raise PydanticCustomError("date", "invalid date format")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("date", "invalid date format")
    while abs(value) > _MILLISECONDS:
        value /= 1000
    try:
        return datetime.fromtimestamp(value, UTC).date()
    except (ValueError, OverflowError) as error:  # not a number, or none that a calendar has
        raise PydanticCustomError("date", "invalid date format") from error


@lru_cache(maxsize=10_000)  # the days of thousands of samples are often the same
def _read_day(text: str) -> date | None:
    if not _DAY.fullmatch(text):
        return None
    try:
        return date(*map(int, text.split("-")))
    except ValueError as error:
        raise PydanticCustomError("date", "invalid date format") from error


def _in_utc(value: datetime) -> datetime:
    """The database keeps UTC without saying so."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Date = Annotated[
    date, BeforeValidator(_read_date), WithJsonSchema({"type": "string", "format": "date"})
]
"""A day in a request: ``2021-01-31``, or seconds since 1970; no time of day."""

RowId = Annotated[int, Field(le=_MAX_ID, ge=-_MAX_ID - 1)]
"""The id of a row, in a request: what PostgreSQL's integer can hold."""

StrictText = Annotated[str, StringConstraints(strict=True)]
"""A string in a request that may not come as a number."""

UtcTime = Annotated[
    datetime,
    AfterValidator(_in_utc),
    PlainSerializer(lambda value: value.isoformat(timespec="seconds"), when_used="json"),
]
"""A time in an answer: ``2021-01-31T12:00:00+00:00``."""


class BaseRequest(BaseModel):
    """The base of every request's body."""

    model_config = ConfigDict(
        extra="ignore", str_strip_whitespace=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class BaseResponse(BaseModel):
    """The base of every answer; made from dicts or from rows (``from_attributes``)."""

    model_config = ConfigDict(from_attributes=True)
