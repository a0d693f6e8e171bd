"""``make bench-page``: the chart and table in docs/guides/performance.md, from its figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.speed import api_lists
from benchmarks.speed.lists import LIST as LIST_SAMPLES
from benchmarks.speed.renames import ORM, PSQL, RENAME
from benchmarks.speed.service import FIRST_BYTE, LIST, PUT

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
FIGURES, PICTURE, PAGE = (GUIDES / f"performance.{suffix}" for suffix in ("json", "svg", "md"))
_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->\n"

# Readable on white and on black: a medium gray, and colors that contrast with both.
_GREY = "#818b98"
_LINES = {"aspencli": "#2f81f7", "psql": "#3fa34d", "ORM": "#db6d28"}
_MANY = 100_000  # rows
_LINE = 11  # points between one name and the next
_STYLE = {
    "svg.fonttype": "none",  # text stays text, which keeps the file small
    "svg.hashsalt": "aspencli",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}

_SECTIONS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "Beside psql": lambda one: (
        one["rows"] >= _MANY and one["baseline"] == PSQL and "swapped" not in one["task"]
    ),
    "Fewer rows": lambda one: 0 < one["rows"] < _MANY and one["baseline"] == PSQL,
    "Identifiers handed on within the file": lambda one: "swapped" in one["task"],
    "Beside the ORM": lambda one: one["baseline"] == ORM,
    "The service": lambda one: one["task"] in (LIST, FIRST_BYTE, PUT),
    "The API's list": lambda one: one["task"] in (api_lists.LIST, api_lists.UPDATE),
    "The console": lambda one: one["task"].startswith(("db interact", "db profile", "db psql")),
    "Lists": lambda one: one["task"].startswith(LIST_SAMPLES),
    "Start": lambda one: one["task"].startswith("aspencli"),
}
Point = tuple[int, float]  # rows, and seconds or MiB


def main() -> int:
    """Write the chart and the table."""
    content = json.loads(FIGURES.read_text())
    mpl.rcParams.update(_STYLE)
    _draw(content["comparisons"]).savefig(
        PICTURE, transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
    )
    before, _begin, rest = PAGE.read_text().partition(_BEGIN)
    _old, _end, after = rest.partition(_END)
    table = "".join(_table(content))
    PAGE.write_text(f"{before}{_BEGIN}{table}{_END}{after}")
    return 0


def _draw(comparisons: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8.6, 3.4))
    seconds, memory = figure.subplots(1, 2)
    _plot(seconds, _lines(comparisons, "seconds"), "seconds")
    _plot(memory, _lines(comparisons, "peak_mb"), "memory of the client, MiB")
    seconds.set_title("Time", loc="left")
    memory.set_title("Memory", loc="left")
    figure.tight_layout(w_pad=3)
    return figure


def _lines(comparisons: list[dict[str, Any]], measure: str) -> dict[str, list[Point]]:
    """Return the measurements of each contender, by rows."""
    lines: dict[str, list[Point]] = {name: [] for name in _LINES}
    for one in comparisons:
        if one["task"] == RENAME and one["baseline"] == PSQL:
            lines["aspencli"].append((one["rows"], one["ours"][measure]))
            lines["psql"].append((one["rows"], one["theirs"][measure]))
        elif one["task"] == RENAME and one["baseline"] == ORM:
            lines["ORM"].append((one["rows"], one["theirs"][measure]))
    return lines


def _plot(axes: Axes, lines: dict[str, list[Point]], label: str) -> None:
    for name, points in lines.items():
        rows, values = zip(*points, strict=True)
        axes.plot(rows, values, color=_LINES[name], marker="o", markersize=4, linewidth=1.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, color=_GREY, alpha=0.25, linewidth=0.6)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,g}"))
    axes.set_xlabel("rows renamed")
    axes.set_ylabel(label)
    _name(axes, {name: points[-1] for name, points in lines.items()})


def _name(axes: Axes, ends: dict[str, Point]) -> None:
    """Label each line at its end, without overlaps."""
    per_point = axes.figure.dpi / 72
    lowest = float("-inf")
    for name, end in sorted(ends.items(), key=lambda item: item[1][1]):
        height = axes.transData.transform(end)[1] / per_point
        place = max(height, lowest)
        lowest = place + _LINE
        axes.annotate(
            name,
            end,
            xytext=(7, place - height),
            textcoords="offset points",
            color=_LINES[name],
            va="center",
            annotation_clip=False,
        )


def _table(content: dict[str, Any]) -> Iterator[str]:
    machine = content["machine"]
    yield (
        f"On {machine['cores']} cores ({machine['processor']}) with {machine['memory_gb']} GB, "
        f"PostgreSQL {machine['postgresql']}, Python {machine['python']}; medians of "
        f"{machine['rounds']} runs by turns (of the ORM with a million rows: one run).\n\n"
    )
    comparisons = content["comparisons"]
    for title, belongs in _SECTIONS.items():
        yield f"### {title}\n\n"
        yield "| what | rows | seconds | beside | seconds | ratio | goal | MiB | beside |\n"
        yield "|---|--:|--:|---|--:|--:|--:|--:|--:|\n"
        yield from (_line(one) for one in comparisons if belongs(one))
        yield "\n"


def _line(one: dict[str, Any]) -> str:
    ours, theirs = one["ours"], one["theirs"]
    cells = [
        one["task"],
        f"{one['rows']:,}" if one["rows"] else "",
        f"{ours['seconds']:.2f}",
        one["baseline"].replace("\\", "\\\\"),
        f"{theirs['seconds']:.2f}",
        f"**{one['ratio']:.2f}**",
        "" if one["goal"] is None else f"≤ {one['goal']:g}",
        f"{ours['peak_mb']:,.0f}",
        f"{theirs['peak_mb']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
