"""How fast the API answers, against the least that FastAPI and PostgreSQL need."""
