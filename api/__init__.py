"""The REST API: one folder per resource (routes, service, schemas); errors become HTTP in errors.py. No torch."""
