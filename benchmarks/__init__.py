"""Measured against the alternatives: each module has ``run(quick=False)``, which returns rows for the table.

A row is ``{"benchmark", "case", "value", "unit", "against", "ratio", "floor_share"}``: our figure and its unit, what it
is compared with, the ratio (above 1: we are faster), and the share of what the machine can do at all (0 to 1, or
None). Ours and the rival are measured in turn in one run, so that ratios hold on any machine.
"""
