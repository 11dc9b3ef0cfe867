"""Webhooks: where a project's events are sent, and what became of each."""
