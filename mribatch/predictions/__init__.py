"""Keep the table of predictions: its parts, their ledger and history, and the lock of the run that writes them."""
