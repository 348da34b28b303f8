"""Tests of rozenfmt.tree."""
