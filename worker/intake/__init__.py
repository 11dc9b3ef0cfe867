"""Reading uploaded files."""
