"""Datasets: pairs gathered one by one or from files, their revisions, images and review."""
