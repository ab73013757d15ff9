"""The chaos run: hostile writers, workers and servers that die, and two ledgers that must be equal."""
