"""Columns of text side by side: aligned, cut to the width of a terminal, in colour if that is wanted."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

_GAP = " "
_CUT = "…"
_SAMPLE, _FEW = 256, 16
_BOLD = "1"


class Column(NamedTuple):
    """A column: one text for each line. `least` is how far it may be cut for want of room, 0 for not at all.

    `styles` maps whole texts to SGR codes of the terminal (ECMA-48). `short` is the title where there is little room.
    """

    title: str
    texts: Sequence[str]
    right: bool = False
    least: int = 0
    bold: bool = False
    styles: Mapping[str, str] = {}
    short: str = ""


def lay_out(
    columns: Sequence[Column],
    *,
    width: int | None = None,
    colour: bool = False,
    header: bool = True,
    below: Sequence[str] | None = None,
    line_styles: Sequence[str] | None = None,
) -> str:
    """Return the lines of a table, each with a newline; `below` has a text for under each line, where it is not empty.

    `line_styles` are SGR codes of whole lines. Texts are taken as printable. Nothing is cut without a `width`.
    """
    narrow = all(_is_narrow(column.texts) for column in columns)
    if width is not None and whole_width(columns, header=header) > width:
        columns = [column._replace(title=column.short or column.title) for column in columns]
    widths = _widths(columns, width, header=header, narrow=narrow)
    lines: list[str] = []
    if header:
        titles = [column._replace(texts=(column.title,), styles={}, bold=False) for column in columns]
        lines += (
            _styled(line, _BOLD if colour else "") for line in _careful_lines(titles, widths, width, colour=False)
        )
    if colour or width is not None or not narrow:
        careful = list(_careful_lines(columns, widths, width, colour=colour))
        lines += careful if line_styles is None else map(_styled, careful, line_styles)
    else:
        forms = [f"%{'' if column.right else '-'}{size}s" for column, size in zip(columns, widths, strict=True)]
        forms[-1] = "%s"
        drawn = map(_GAP.join(forms).__mod__, zip(*(column.texts for column in columns), strict=True))
        lines += map(str.rstrip, drawn) if "" in columns[-1].texts else drawn
    if below is not None:
        first = lines[: len(lines) - len(below)]
        pairs = zip(lines[len(first) :], below, strict=True)
        lines = first + [f"{line}\n\t{more}" if more else line for line, more in pairs]
    return "\n".join([*lines, ""])


def whole_width(columns: Sequence[Column], *, header: bool, short: bool = False) -> int:
    """Return how many cells a table takes if nothing of it is cut; `short` is with the short titles."""
    if short:
        columns = [column._replace(title=column.short or column.title) for column in columns]
    narrow = all(_is_narrow(column.texts) for column in columns)
    return _whole(_widths(columns, None, header=header, narrow=narrow))


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def cells(text: str) -> int:
    """Return how many cells of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Return a text that takes no more than `width` cells, with an ellipsis where it was cut."""
    if cells(text) <= width:
        return text
    room = width - 1
    kept = []
    for character in text:
        room -= _cells_of(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + _CUT


def _is_narrow(texts: Iterable[str]) -> bool:
    return "".join(texts).isascii()


def _widths(columns: Sequence[Column], width: int | None, *, header: bool, narrow: bool) -> list[int]:
    """Return the widths of columns; of those that may be cut the widest gives way first."""
    titles = [len(column.title) if header else 0 for column in columns]
    measure = len if narrow else cells
    widths = [
        max(title, max(map(measure, _distinct(column.texts)), default=0))
        for title, column in zip(titles, columns, strict=True)
    ]
    if width is None:
        return widths
    while _whole(widths) > width:
        able = [at for at, column in enumerate(columns) if column.least and widths[at] > column.least]
        if not able:
            break
        widest = max(able, key=widths.__getitem__)
        excess = _whole(widths) - width
        rivals = [widths[at] for at in able if at != widest]
        step = max(1, min(excess, widths[widest] - max([columns[widest].least, *rivals])))
        widths[widest] -= step
    return widths


def _distinct(texts: Sequence[str]) -> Iterable[str]:
    """Return each text once where there are few that come again and again."""
    return set(texts) if len(set(texts[:_SAMPLE])) < _FEW else texts


def _padded(text: str, size: int, *, right: bool) -> str:
    blanks = " " * (size - cells(text))
    return f"{blanks}{text}" if right else f"{text}{blanks}"


def _careful_lines(
    columns: Sequence[Column], widths: Sequence[int], width: int | None, *, colour: bool
) -> Iterator[str]:
    """Yield the lines cell by cell; what is beyond the width of the terminal is left out."""
    for texts in zip(*(column.texts for column in columns), strict=True):
        room = width
        parts: list[str] = []
        for text, column, size in zip(texts, columns, widths, strict=True):
            wanted = size if room is None else min(size, room)
            if wanted <= 0:
                break
            shown = cut(text, wanted)
            if column.right or column is not columns[-1]:
                shown = _padded(shown, wanted, right=column.right)
            style = column.styles.get(text, _BOLD if column.bold and text[:1] not in "-?" else "")
            parts.append(_styled(shown, style if colour else ""))
            if room is not None:
                room -= wanted + len(_GAP)
        yield _GAP.join(parts).rstrip()


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and text.strip() else text
