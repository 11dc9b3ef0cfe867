"""Keys, roles and whose request it is."""
