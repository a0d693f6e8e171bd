"""The light steps of tree jobs, each taking a second, so that something can happen meanwhile."""

from __future__ import annotations

from tests.workflows.engine.trial import PLANS

__all__ = ["PLANS"]
