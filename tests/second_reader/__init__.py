"""A second, independent reader of rozenfmt archives, written from spec/format.md and spec/registry.md alone."""
