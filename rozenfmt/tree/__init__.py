"""The local file system: walking and capturing a tree, restoring it safely, reading it for comparison."""
