"""Output of packets whose owners are given."""
