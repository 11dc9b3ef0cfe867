"""Mutation testing: break one line of the product, run the tests that execute it, and see whether any of them fails."""
