"""What uploads cost the API: memory and time."""
