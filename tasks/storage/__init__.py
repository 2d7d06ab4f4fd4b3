"""Stage folders and their records, Parquet rows, atomic writes."""
