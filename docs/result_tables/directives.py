"""Directives and a role for pages: tables, claims about them, and single figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.util.docutils import SphinxDirective, SphinxRole

from .base import Table, commands
from .catalogue import check, find, made, shown


def _bold(table: Table) -> pd.DataFrame:
    """Which cells hold the best figures."""
    figures = table.figures.drop(index=table.outside, columns=table.outside, errors="ignore")
    numbers = figures.apply(pd.to_numeric, errors="coerce")
    better = numbers.mul([-1 if column in table.lower else 1 for column in numbers])
    axis = {"in columns": 0, "in rows": 1, None: None}[table.best]
    if axis is None:
        return numbers.isna() & False
    return better.eq(better.max(axis=axis), axis=1 - axis)


def _drawn(table: Table) -> nodes.table:
    """The table as a node."""
    bold, figures = _bold(table), table.figures
    drawn = nodes.table("", nodes.title("", table.caption), classes=["figures"])
    group = nodes.tgroup(cols=1 + figures.shape[1])
    drawn += group
    group.extend(nodes.colspec(colwidth=1) for _ in range(1 + figures.shape[1]))
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    head += _row(["", *map(str, figures.columns)])
    for name, row in figures.iterrows():
        text = [shown(value, table.digits) for value in row]
        best = [name in bold.index and column in bold and bool(bold.at[name, column]) for column in figures]
        body += _row([str(name), *text], [False, *best])
    return drawn


def _row(texts: Sequence[str], bold: Sequence[bool] | None = None) -> nodes.row:
    row = nodes.row()
    for text, strong in zip(texts, bold or [False] * len(texts), strict=True):
        content = nodes.strong("", text) if strong else nodes.Text(text)
        row += nodes.entry("", nodes.paragraph("", "", content) if text else nodes.paragraph())
    return row


def _results(env) -> Path:
    """The folder of results; a page that asks for it is made anew when anything there, or here, changes."""
    results = Path(env.srcdir) / "results"
    for path in (*Path(__file__).parent.glob("*.py"), *results.iterdir()):
        env.note_dependency(str(path))
    return results


class Figures(SphinxDirective):
    """A table of `TABLES`, or several, and where they come from."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        results = _results(self.env)
        tables, content = made(results, self.arguments[0]), []
        for table in tables:
            content.append(_drawn(table))
            content += [nodes.paragraph("", remark) for remark in table.remarks]
        # Tables of one name are made of the same files.
        return content + ([self._origin(results, tables[0].files)] if tables[0].files else [])

    def _origin(self, results: Path, files: Sequence[str]) -> nodes.container:
        origin, lines = nodes.container(classes=["provenance"]), []
        links = nodes.paragraph("", "Made of ")
        names = list(dict.fromkeys(file.partition(",")[0] for file in files))
        for name in names:
            link = download_reference("", "", nodes.literal("", name), refdoc=self.env.docname)
            link["reftarget"] = f"/results/{name}"
            links += [nodes.Text(", ") if name != names[0] else nodes.Text(""), link]
        links += nodes.Text(":")
        for file in files:
            lines += commands(results, file)
        text = "\n".join(lines)
        origin += [links, nodes.literal_block(text, text, language="none")]
        return origin


class Claim(SphinxDirective):
    """Text that stands only while one condition a line holds; a line that ends in ">" or "~" goes on in the next."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        for condition in re.sub(r"([>~])\s*\n", r"\1 ", self.arguments[0]).splitlines():
            check(_results(self.env), condition)
        return self.parse_content_to_nodes()


class Cell(SphinxRole):
    """A figure, as a table shows it."""

    def run(self):
        text = shown(*find(_results(self.env), self.text))
        return [nodes.Text(text)], []
