"""A small document model with two outputs: Markdown with linked images, and one HTML file with embedded images.

Text may contain `code` and **bold**; everything else is literal. Built on `style`.
"""

import base64
import html
import re
from typing import List, NamedTuple, Sequence, Tuple, Union

from edgeflownas.reporting.style import STYLE


class Heading(NamedTuple):
    text: str
    level: int = 2


class Paragraph(NamedTuple):
    text: str


class Bullets(NamedTuple):
    items: Sequence[str]


class VerdictBox(NamedTuple):
    """The framed box at the top. `tone`: good, fair, bad or open."""

    tone: str
    title: str
    items: Sequence[Tuple[str, str, str]]  # (tone, name, text)


class Grid(NamedTuple):
    """A table. Columns whose index is in `plain` are text; all others are numbers, right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    plain: Sequence[int] = (0,)
    folded: str = ""  # a summary line; if given, the HTML hides the table until a click on that line
    pairs: bool = False  # the columns are two pairs of name and value; a narrow page stacks the pairs


class Figure(NamedTuple):
    """A PNG image `name`.png. `alt` says what it shows, `caption` how to read it."""

    name: str
    png: bytes
    alt: str
    caption: str
    wide: bool = False


Part = Union[Heading, Paragraph, Bullets, VerdictBox, Grid, Figure]
_MARKS = {"good": "\u2714", "fair": "\u25b2", "bad": "\u2716", "open": "\u2026"}  # tick, triangle, cross, dots


def to_markdown(title: str, parts: Sequence[Part], image_folder: str) -> str:
    """GitHub-flavoured Markdown; images are linked as `image_folder`/name.png."""
    blocks = ["# " + _literal(title)]
    for part in parts:
        if isinstance(part, Heading):
            blocks.append("#" * part.level + " " + _literal(part.text))
        elif isinstance(part, Paragraph):
            blocks.append(_literal(part.text))
        elif isinstance(part, Bullets):
            blocks.append("\n".join("- " + _literal(item) for item in part.items))
        elif isinstance(part, VerdictBox):
            blocks.append(f"> **{_MARKS[part.tone]} {_literal(part.title)}**")
            lines = [f"- {_MARKS[tone]} **{_literal(name)}**: {_literal(text)}" for tone, name, text in part.items]
            blocks.append("\n".join(lines))
        elif isinstance(part, Grid):
            blocks.append(_markdown_grid(part))
        else:
            blocks.append(f"![{part.alt}]({image_folder}/{part.name}.png)\n\n*{_literal(part.caption)}*")
    return "\n\n".join(blocks) + "\n"


def _literal(text: str) -> str:
    """Escapes all Markdown except `code` and **bold**, because a run may be called `_a_`, `<b>` or `$x$`."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _escaped(text: str) -> str:
    text = re.sub(r"([\\<\[\]$])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)  # inside a word _ is literal already
    return re.sub(r"(?<!\*)\*(?!\*)", r"\*", text)


def _markdown_grid(grid: Grid) -> str:
    rule = ["---" if column in grid.plain else "---:" for column in range(len(grid.header))]
    header, *rows = [[_literal(cell).replace("|", "\\|") for cell in row] for row in [grid.header, *grid.rows]]
    rows = [header, rule] + rows
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{grid.folded}:\n\n{text}" if grid.folded else text


def to_html(title: str, parts: Sequence[Part]) -> str:
    """One self-contained HTML file: style and images are embedded, and there are no scripts."""
    body = "\n".join(_html_part(part) for part in parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n{2}\n</main>\n</body>\n</html>\n"
    ).format(html.escape(title), STYLE, body)


def _html_part(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h{part.level}>{_inline(part.text)}</h{part.level}>"
    if isinstance(part, Paragraph):
        return f"<p>{_inline(part.text)}</p>"
    if isinstance(part, Bullets):
        return "<ul>{}</ul>".format("".join(f"<li>{_inline(item)}</li>" for item in part.items))
    if isinstance(part, VerdictBox):
        return _html_verdict(part)
    if isinstance(part, Grid):
        return _html_grid(part)
    return _html_figure(part)


def _html_figure(figure: Figure) -> str:
    image = f'<img alt="{html.escape(figure.alt)}" src="data:image/png;base64,{_base64(figure.png)}">'
    caption = f"<figcaption>{_inline(figure.caption)}</figcaption>"
    return "<figure{}><div>{}</div>{}</figure>".format(' class="wide"' if figure.wide else "", image, caption)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _html_verdict(box: VerdictBox) -> str:
    items = "".join(
        f'<li class="{tone}"><span class="mark">{_MARKS[tone]}</span>'
        f"<div><b>{html.escape(name)}</b>: {_inline(text)}</div></li>"
        for tone, name, text in box.items
    )
    title = f'<p class="word">{_MARKS[box.tone]} {_inline(box.title)}</p>'
    return f'<section class="verdict {box.tone}">{title}<ul>{items}</ul></section>'


def _html_grid(grid: Grid) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>{}</tr>".format(
            "".join(
                "<{0}{1}>{2}</{0}>".format(tag, "" if column in grid.plain else ' class="n"', _inline(cell))
                for column, cell in enumerate(cells)
            )
        )

    body: List[str] = [row(cells, "td") for cells in grid.rows]
    table = '<div class="scroll"><table{}><thead>{}</thead><tbody>{}</tbody></table></div>'.format(
        ' class="pairs"' if grid.pairs else "", row(grid.header, "th"), "\n".join(body)
    )
    return f"<details><summary>{_inline(grid.folded)}</summary>{table}</details>" if grid.folded else table


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
