"""Read tables from files: any separator, with or without a header, with text and missing values, compressed or not."""

from .columns import announce, is_number, rows_of, with_names_of_text
from .files import TABLE_FORMATS, bare_name, file_format
from .options import TableOptions
from .read import read_table

__all__ = [
    "TABLE_FORMATS",
    "TableOptions",
    "announce",
    "bare_name",
    "file_format",
    "is_number",
    "read_table",
    "rows_of",
    "with_names_of_text",
]
