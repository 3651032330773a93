"""The test bed: network namespaces, programs that tell the truth about themselves, a sniffer and a verdict."""
