"""Packets in: live rings, capture files and packet filters."""
