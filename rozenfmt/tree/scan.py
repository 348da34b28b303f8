"""Walking and capturing a local tree."""
