"""Reading what users upload: archives of image pairs in, normalised images and findings out.

Pure: no HTTP, no SQL, no torch. An upload that cannot be used is an answer (``Prepared.findings``), not an exception.
"""

from intake.findings import Code, Finding, Severity
from intake.limits import Limits
from intake.pairs import Prepared, PreparedPair, Split
from intake.prepare import prepare_archive
from intake.report import Report

__all__ = ["Code", "Finding", "Limits", "Prepared", "PreparedPair", "Report", "Severity", "Split", "prepare_archive"]
