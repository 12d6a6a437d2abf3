"""Tissue: which part of a slide is worth tiling, and the pictures and polygons that show it."""
