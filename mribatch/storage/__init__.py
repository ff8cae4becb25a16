"""Where bytes come from and where rows go: scans in, Parquet out."""
