"""Explain: what a trained model looked at, from stored features alone."""
