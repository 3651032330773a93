"""Name the process behind every packet on a Linux host."""
