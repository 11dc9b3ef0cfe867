"""Held-out metrics, diagnostics and reference mismatch."""
