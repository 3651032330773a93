"""Tests on real traffic, between network namespaces that they make themselves."""
