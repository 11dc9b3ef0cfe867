"""Reading what users upload: archives and tables of image pairs in, normalised images and findings out.

Pure: no HTTP, no SQL, no torch. An unusable upload is a result (``PreparedUpload.findings``), not an exception.
"""

from intake.findings import Code, Finding, Severity
from intake.limits import Limits
from intake.pairs import PreparedPair, PreparedUpload, Split
from intake.policy import Policy
from intake.prepare import Progress, prepare_upload
from intake.report import Report

__all__ = [
    "Code",
    "Finding",
    "Limits",
    "Policy",
    "PreparedPair",
    "PreparedUpload",
    "Progress",
    "Report",
    "Severity",
    "Split",
    "prepare_upload",
]
