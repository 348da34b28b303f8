"""The command line: thin over the public API, and no part of it."""
