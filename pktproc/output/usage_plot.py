"""A usage report drawn: bandwidth over time, stacked by row. Needs the extra `plot` (Altair and vl-convert)."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pktproc.bandwidth.views import Row, Series, View
from pktproc.errors import UsageError
from pktproc.output.usage_rows import both_ways, is_rest, labels

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LAYERS = 12
"""Rows that are drawn by themselves; more could not be told apart by colour."""
REST = "all others"
_NS_PER_MS = 1_000_000
_MOST_STEPS = 1_000
_WIDTH, _HEIGHT = 900, 420
_LIBRARIES = ("altair", "vl_convert")


def check() -> None:
    """Raise `UsageError` if the libraries are missing."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError("--plot needs Altair: pip install 'pktproc[plot]'")


def draw(path: str, view: View, series: Series) -> None:
    """Write a plot to a file, whose suffix says what kind; an HTML file holds all that it needs."""
    chart = _chart(view, series)
    if path.lower().endswith(".html"):
        Path(path).write_text(chart.to_html(inline=True), encoding="utf-8")
    else:
        chart.save(path, scale_factor=2) if path.lower().endswith(".png") else chart.save(path)


def _chart(view: View, series: Series) -> Any:
    import altair as alt  # noqa: PLC0415 - half a second

    alt.data_transformers.disable_max_rows()
    points, names = _points(view, series)
    times_ms = [point["time"] for point in points] or [0]
    ticks_ms, form = _ticks(min(times_ms), max(times_ms))
    title = alt.TitleParams(
        "Who used the network", subtitle=f"bytes per second by {', '.join(view.by)}, {view.layer} bytes", anchor="start"
    )
    return (
        alt.Chart(alt.InlineData(values=points), title=title, width=_WIDTH, height=_HEIGHT)
        .mark_area(interpolate="step-after", opacity=1)
        .encode(
            x=alt.X("time:T", title=None, axis=alt.Axis(values=ticks_ms, format=form)),
            y=alt.Y("rate:Q", title="bytes per second", stack="zero", axis=alt.Axis(format="~s")),
            color=alt.Color(
                "row:N",
                title=None,
                sort=names,
                scale=alt.Scale(domain=names, range=_colours(names)),
                legend=alt.Legend(labelLimit=260, symbolType="square"),
            ),
            order=alt.Order("place:Q"),
            tooltip=["row:N", alt.Tooltip("time:T", format="%H:%M:%S"), alt.Tooltip("rate:Q", format=".3s")],
        )
        .configure_view(stroke=None)
    )


_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
_STEPS_MS = (
    *(_SECOND_MS * step for step in (1, 2, 5, 10, 30)),
    *(_MINUTE_MS * step for step in (1, 2, 5, 10, 30)),
    *(_HOUR_MS * step for step in (1, 2, 6, 12)),
)
_MOST_TICKS = 10


def _ticks(first_ms: int, last_ms: int) -> tuple[list[int], str]:
    """Return the times at which the axis is marked, and how they are written."""
    span_ms = last_ms - first_ms
    days = span_ms // _MOST_TICKS // _DAY_MS + 1
    step_ms = next((step for step in _STEPS_MS if span_ms <= step * _MOST_TICKS), days * _DAY_MS)
    form = "%H:%M" if step_ms >= _MINUTE_MS else "%H:%M:%S"
    if span_ms > _DAY_MS:
        form = "%d %b %H:%M"
    return list(range(-(-first_ms // step_ms) * step_ms, last_ms + 1, step_ms)), form


# Tableau's palette of ten (Stone, "How we designed the new color palettes", 2016) with two more; grey is for the rest.
_PALETTE = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#2f4b7c",
    "#86bcb6", "#d37295",
)  # fmt: skip
_GREY = "#bab0ac"


def _colours(names: Sequence[str]) -> list[str]:
    return [_GREY if name == REST else _PALETTE[place % len(_PALETTE)] for place, name in enumerate(names)]


def _points(view: View, series: Series) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a point for each layer and interval, those without bytes included, and the layers, largest first."""
    ranked = sorted(view.rows, key=lambda row: (not is_rest(row), both_ways(row.total)), reverse=True)
    shown = ranked if len(ranked) <= MAX_LAYERS else ranked[: MAX_LAYERS - 1]
    names = _names(view, shown)
    sums: dict[str, dict[int, int]] = {name: {} for name in names.values()}
    if len(shown) < len(ranked):
        sums[REST] = {}
    first_ns = min((points[0].time_ns for points in series.values() if points), default=0)
    last_ns = max((points[-1].time_ns for points in series.values() if points), default=0)
    step_ns = max(round(view.interval_s * 1e9), 1)
    joined = (last_ns - first_ns) // step_ns // _MOST_STEPS + 1
    step_ns *= joined
    for row in ranked:
        layer = sums[names.get(row.key, REST)]
        for time_ns, sent, received, passed in series.get(row.key, ()):
            at = (time_ns - first_ns) // step_ns
            layer[at] = layer.get(at, 0) + sent + received + passed
    steps = (last_ns - first_ns) // step_ns + 2  # one more, without bytes, for the last to have its width
    seconds = step_ns / 1e9
    return [
        {
            "row": name,
            "place": place,
            "time": (first_ns + at * step_ns) // _NS_PER_MS,
            "rate": layer.get(at, 0) / seconds,
        }
        for place, (name, layer) in enumerate(sums.items())
        for at in range(steps)
    ], list(sums)


def _names(view: View, rows: Sequence[Row]) -> dict[tuple[str, ...], str]:
    names: dict[tuple[str, ...], str] = {}
    for row in rows:
        text = REST if is_rest(row) else ", ".join(labels(view, row))
        names[row.key] = text if text not in names.values() else f"{text} ({len(names)})"
    return names
