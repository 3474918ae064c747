"""The report pages in a real browser."""
