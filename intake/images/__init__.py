"""One image of any accepted kind becomes one kind."""
