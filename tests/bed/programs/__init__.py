"""Programs that make traffic and print JSON lines about themselves: their pid, their sockets, what they sent."""
