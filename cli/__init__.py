"""The ``pairtune`` command."""
