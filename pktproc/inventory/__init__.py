"""What is known of a host's sockets at one look: rows, who holds them, who is at their other ends, and selections."""
