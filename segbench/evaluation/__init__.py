"""Evaluation: predict the test cases of one job, score them, and gather all rows into the one table."""
