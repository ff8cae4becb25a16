"""One composition per job. Only `jobs/` and the package itself import from here."""
