"""Bars beside each other, as an SVG file beside a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

_ROW, _LEFT, _WIDTH, _END = 26, 330, 360, 90  # pixels


def bars(page: Path, name: str, unit: str, rows: Sequence[tuple[str, float | None]]) -> str:
    """Writes `PAGE-NAME.svg`, the first row being ours; answers with the line of Markdown that shows it.

    A row without a value was not installed here.
    """
    longest = max((value for _, value in rows if value is not None), default=1.0)
    lines = []
    for place, (label, value) in enumerate(rows):
        y = place * _ROW
        kind = "ours" if place == 0 else "theirs"
        shown = "not installed here" if value is None else f"{value:,.0f} {unit}"
        width = 0.0 if value is None else value / longest * _WIDTH
        lines.append(
            f'<text x="{_LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="{kind}" x="{_LEFT}" y="{y + 4}" width="{width:.1f}" height="18"/>'
            f'<text x="{_LEFT + width + 6:.1f}" y="{y + 17}">{escape(shown)}</text>'
        )
    style = "text{font:13px system-ui,sans-serif;fill:#555}.ours{fill:#2563eb}.theirs{fill:#9ca3af}"
    size = f'viewBox="0 0 {_LEFT + _WIDTH + _END} {len(rows) * _ROW}" width="{_LEFT + _WIDTH + _END}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(name)}, {escape(unit)}</title>'
    file = page.with_name(f"{page.stem}-{name}.svg")
    file.write_text("\n".join([head, f"<style>{style}</style>", *lines, "</svg>"]) + "\n")
    return f"![{name}, {unit}]({file.name})"
