"""Packets in: live rings and packet filters."""
