"""Check a file against its application definition, and against what each known reader demands. Needs no network.

`check_file` names what is missing or wrong, where, and for whom. Rules are data (`_nxmx`, `_readers`); those of another
definition (NXazint, NXcanSAS) join `APPLICATIONS` under its name. Any HDF5 file is taken, whoever wrote it; nothing in
it is changed.
"""

from sisockdaq.nexus.check._checking import APPLICATIONS, READERS, check_file, rules
from sisockdaq.nexus.check._rules import Demand, Finding, Report, Rule

__all__ = ["APPLICATIONS", "READERS", "Demand", "Finding", "Report", "Rule", "check_file", "rules"]
