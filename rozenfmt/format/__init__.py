"""The archive format, sans-I/O: bytes in, records out; records in, bytes out."""
