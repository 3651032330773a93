"""Results out: text and JSON lines."""
