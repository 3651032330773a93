"""Tests of the store, its recorder and its reading back."""
