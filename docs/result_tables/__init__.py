"""Tables of figures, made of ``results/*.csv`` when the documents are built: a page types none.

In a page, ``.. figures:: NAME`` is a table of `TABLES` with the commands that made its files, as ``results/README.md``
has them; ``:cell:`` with NAME; ROW; COLUMN is a figure as that table shows it; and text under
``.. claim:: NAME; ROW; COLUMN > NAME; ROW; COLUMN`` stands only while the tables bear it out: both figures must have a
deviation over seeds, and the difference must exceed the larger one; ``~`` instead of ``>`` says that it does not, that
is, that the figures are level. Otherwise, and if a file is missing, the build fails. What no seed changes, such as a
number of parameters, has the deviation 0.

The page of a method has a module of its name here, with the tables that it shows.
"""

from .base import Table, commands, read
from .catalogue import TABLES, check, deviation, find, made, shown
from .directives import Cell, Claim, Figures

__all__ = ["TABLES", "Table", "check", "commands", "deviation", "find", "made", "read", "shown"]


def setup(app):
    app.add_directive("figures", Figures)
    app.add_directive("claim", Claim)
    app.add_role("cell", Cell())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
