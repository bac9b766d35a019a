"""Draws the series of a soak as one SVG: a small chart for each, with the fitted line and the slope in words.

Written by hand: the figures need no library, and the file stays small and diffable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchmarks.soak.sampler import Sample
from benchmarks.soak.slopes import WARM_UP_HOURS

_COLUMNS: Final = 2
_WIDTH, _HEIGHT, _GAP = 420, 150, 24
_LEFT, _TOP, _BOTTOM = 48, 34, 24  # inside a chart, for its labels
#: Points drawn for one series at most.
_POINTS: Final = 400
_INK, _FAINT, _LINE, _NEW = "#3a4250", "#c9ced6", "#1f77b4", "#c2410c"
_STYLE: Final = (
    f"text{{font:12px system-ui,sans-serif;fill:{_INK}}}.n{{font-weight:600}}.s{{font-size:11px}}"
    f"path{{fill:none;stroke:{_LINE};stroke-width:1.4}}.g{{stroke:{_FAINT}}}.k{{stroke:{_NEW};stroke-dasharray:3 3}}"
)


def draw(series: Mapping[str, Sequence[Sample]], words: Mapping[str, str]) -> str:
    """Return the SVG; `words` says what was found for each series."""
    rows = -(-len(series) // _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) - _GAP
    height = rows * (_HEIGHT + _GAP) - _GAP
    charts = "".join(
        f'<g transform="translate({number % _COLUMNS * (_WIDTH + _GAP)},{number // _COLUMNS * (_HEIGHT + _GAP)})">'
        f"{_chart(name, samples, words.get(name, ''))}</g>\n"
        for number, (name, samples) in enumerate(series.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {width + 16} {height + 16}" role="img">\n'
        f"<title>What wan22 holds over time</title><style>{_STYLE}</style>\n"
        f'<rect x="-8" y="-8" width="{width + 16}" height="{height + 16}" fill="#ffffff"/>\n{charts}</svg>\n'
    )


def _chart(name: str, samples: Sequence[Sample], words: str) -> str:
    """Return one chart: the level over minutes; a dashed line is a new process, the grey part its warm-up."""
    end = max(sample.hours for sample in samples) or 1.0
    highest = max(sample.value for sample in samples) * 1.1 or 1.0

    def x(hours: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT) * hours / end, 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / highest, 1)

    parts = [
        f'<text class="n" x="0" y="12">{escape(name)}</text>',
        f'<text class="s" x="0" y="27">{escape(words)}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        level = highest / 1.1 * share
        parts.append(f'<path class="g" d="M{_LEFT} {y(level)}H{_WIDTH}"/>')
        parts.append(f'<text class="s" x="{_LEFT - 6}" y="{y(level) + 4}" text-anchor="end">{level:.3g}</text>')
    for hours, anchor in ((0.0, "start"), (end, "end")):
        parts.append(
            f'<text class="s" x="{x(hours)}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{hours * 60:.0f} min</text>'
        )
    for number, life in enumerate(dict.fromkeys(sample.life for sample in samples)):
        mine = [sample for sample in samples if sample.life == life]
        if number:
            parts.append(f'<path class="k" d="M{x(mine[0].hours)} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        step = max(1, len(samples) // _POINTS)
        points = " ".join(f"{x(sample.hours)} {y(sample.value)}" for sample in mine[::step])
        parts.append(f'<path d="M{points}"/>')
        warm = min(mine[0].hours + WARM_UP_HOURS, end)
        parts.append(f'<path class="g" d="M{x(mine[0].hours)} {_HEIGHT - _BOTTOM + 3}H{x(warm)}"/>')
    return "".join(parts)
