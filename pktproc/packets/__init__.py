"""Bytes in, columns out: pure decoding of whole blocks of packets, total on any input."""
