"""The tables of the five papers: which script makes each, what it needs, and which of its runs are wanted."""

from papers import dum, negative_sampling_vae, reject_classes, residual_adapters, rotation

PAPERS = (dum, rotation, reject_classes, negative_sampling_vae, residual_adapters)
TABLES = {name: table for paper in PAPERS for name, table in paper.TABLES.items()}
# Tables and figures without a command, and why.
WITHOUT = {table: reason for paper in PAPERS for table, reason in paper.WITHOUT.items()}
