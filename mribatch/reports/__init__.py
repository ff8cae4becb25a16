"""Draw figures and render self-contained HTML pages. A page is a function of numbers; nothing is decided here."""
