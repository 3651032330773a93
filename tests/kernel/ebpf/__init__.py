"""Tests of the engine `ebpf`: its object, its loader, and what it makes of events."""
