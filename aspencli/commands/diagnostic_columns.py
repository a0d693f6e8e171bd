"""Columns and filter values of the server diagnostics."""

from __future__ import annotations

import enum

from aspencli.output.rendering import Column


class Cost(enum.Enum):
    """The sort orders of the most expensive statements."""

    TOTAL = "total"
    MEAN = "mean"
    CALLS = "calls"
    READ = "read"
    TEMP = "temp"


class Kind(enum.Enum):
    """The kinds of findings about an index."""

    INVALID = "invalid"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    COVERED = "covered"
    UNUSED = "unused"


OUTLIER_COLUMNS = (
    Column("total_ms", "Total", right=True),
    Column("share", "Share", right=True),
    Column("calls", "Calls", right=True),
    Column("mean_ms", "Mean", right=True),
    Column("max_ms", "Slowest", right=True, secondary=True),
    Column("rows", "Rows", right=True, secondary=True),
    Column("hit", "In memory", right=True, secondary=True),
    Column("read_bytes", "Read", right=True, secondary=True),
    Column("read_ms", "Reading", right=True, secondary=True),
    Column("temp_bytes", "Temporary", right=True, secondary=True),
    Column("user", "User", secondary=True),
    Column("query_id", "Query id", secondary=True),
    Column("query", "Statement"),
)
SIZE_COLUMNS = (
    Column("table", "Table", whole=True),
    Column("rows", "Rows", right=True),
    Column("total", "Total", right=True),
    Column("heap", "Rows only", right=True),
    Column("toast", "Long values", right=True, secondary=True),
    Column("indexes", "Indexes", right=True),
    Column("estimated", "Estimated", secondary=True),
)
INDEX_COLUMNS = (
    Column("finding", "Finding"),
    Column("table", "Table"),
    Column("index", "Index or key"),
    Column("columns", "Columns"),
    Column("rows", "Rows", right=True, secondary=True),
    Column("size", "Size", right=True),
    Column("scans", "Used", right=True, secondary=True),
    Column("why", "Why", secondary=True),
    Column("step", "Statement", secondary=True),
)
BLOAT_COLUMNS = (
    Column("kind", "Kind"),
    Column("name", "Name", whole=True),
    Column("table", "Table", secondary=True),
    Column("size", "Size", right=True),
    Column("wasted", "Not needed", right=True),
    Column("share", "Share", right=True),
    Column("dead_rows", "Dead rows", right=True, secondary=True),
    Column("vacuumed", "Vacuumed", secondary=True),
    Column("analysed", "Analysed", secondary=True),
    Column("step", "Statement", secondary=True),
)
SETTING_COLUMNS = (
    Column("name", "Setting", whole=True),
    Column("value", "Value"),
    Column("default", "Default", secondary=True),
    Column("source", "From"),
    Column("pending_restart", "Waits for restart", secondary=True),
    Column("remark", "Remark"),
    Column("about", "About", secondary=True),
)
