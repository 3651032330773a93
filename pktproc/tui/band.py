"""Some lines of styled text, drawn again only where they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

Line = Sequence[Segment]

PLAIN = Style()
BOLD = Style(bold=True)
DIM = Style(dim=True)
REVERSE = Style(reverse=True)
NOTE = Style(color="yellow")
WARNING = Style(bold=True, color="red")


class Band(Widget):
    """Show lines that were made elsewhere; each is as high as they are many, cut at the width of the screen.

    Text goes to the terminal as it is: whatever comes from programs has to be escaped before, and is never markup.
    """

    DEFAULT_CSS = "Band { height: auto; width: 1fr; }"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lines: list[list[Segment]] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines instead of those before."""
        before, self._lines = self._lines, [list(line) for line in lines]
        if len(before) != len(self._lines):
            self.refresh(layout=True)
            return
        for y, (old, new) in enumerate(zip(before, self._lines, strict=True)):
            if old != new:
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def text(self) -> str:
        """Return the text of all lines."""
        return "\n".join("".join(segment.text for segment in line) for line in self._lines)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines."""
        del container, viewport, width
        return len(self._lines)

    def render_line(self, y: int) -> Strip:
        """Return a line in the width of the widget."""
        line = self._lines[y] if y < len(self._lines) else []
        return Strip(line).adjust_cell_length(self.size.width, PLAIN)
