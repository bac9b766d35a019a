"""How the embedded tiny models are trained and judged; the served package imports nothing from here."""
