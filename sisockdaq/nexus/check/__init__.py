"""Check a file against its application definition, and against what each known reader demands. Needs no network.

`check_file` names what is missing or wrong, where, and for whom. Rules are data: `_nxmx` and `_readers` for images,
`_azint` and `_cansas` for integrated frames. Any HDF5 file is taken, whoever wrote it; nothing in it is changed.
"""

from sisockdaq.nexus.check._checking import APPLICATIONS, READERS, REDUCED, check_file, rules
from sisockdaq.nexus.check._rules import Demand, Finding, Report, Rule

__all__ = ["APPLICATIONS", "READERS", "REDUCED", "Demand", "Finding", "Report", "Rule", "check_file", "rules"]
