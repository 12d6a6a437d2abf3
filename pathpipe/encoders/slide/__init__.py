"""Slide encoders: all tiles of a slide become one vector."""
