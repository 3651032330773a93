"""Tests of decoding: pure functions on bytes."""
