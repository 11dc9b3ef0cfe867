"""Everything around a request: limits, headers, bodies, pages, transactions."""
