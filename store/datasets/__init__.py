"""Datasets: pairs that come and go, with revisions."""
