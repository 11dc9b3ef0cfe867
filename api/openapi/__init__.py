"""The OpenAPI document; ``python -m api.openapi`` prints it."""
