"""One archive over one storage: write, read, check, extract, salvage, compare, join."""
