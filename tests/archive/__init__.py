"""Whole archives: written, read, damaged, forged, killed."""
