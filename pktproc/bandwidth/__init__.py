"""Bytes folded: how much each process sent and received, in totals that add up."""
