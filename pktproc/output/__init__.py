"""Results out: text, JSON lines, annotated pcapng."""
