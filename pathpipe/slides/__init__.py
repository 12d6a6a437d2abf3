"""Slides: opening them, their resolution, their pixels."""
