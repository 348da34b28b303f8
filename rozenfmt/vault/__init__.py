"""Many backups over time, of one or more hosts, in one folder of some storage (``spec/vault.md``)."""
