"""The `labelstill` command, one file per command group."""
