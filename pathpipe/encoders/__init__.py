"""Encoders: what is known of each, how it is loaded, and how pixels become vectors."""
