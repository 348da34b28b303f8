"""What others may run over their own storage: the conformance suite, and servers for it."""
