"""The API as a program."""
