"""Projects: their keys, limits, quotas, usage and rates."""
