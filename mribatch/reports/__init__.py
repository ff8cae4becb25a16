"""Turn labels and scores into numbers (`metrics`, `drift`), figures and self-contained HTML pages."""
