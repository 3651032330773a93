"""Capture, compared with hand-made ring blocks, and with what tcpdump saw of the same traffic."""
