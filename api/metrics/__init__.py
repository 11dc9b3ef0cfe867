"""What operators watch, in Prometheus' text format; no key needed."""
