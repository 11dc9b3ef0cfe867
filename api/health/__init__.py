"""Liveness and readiness, for load balancers; no key needed."""
