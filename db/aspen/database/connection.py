"""Query profiling under the name that the service's own code uses for it."""

from __future__ import annotations

from aspen.database.profiling.sqltime import (
    disable_profiling,
    enable_profiling,
    enable_profiling_ctx,
)

__all__ = ["disable_profiling", "enable_profiling", "enable_profiling_ctx"]
