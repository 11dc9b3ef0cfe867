"""The API as a program: its connections and processes."""
