"""The services of `pairtune up` on one machine, and commands that work straight on the database."""
