"""Artefacts: what lies on a slide and is no tissue, or tissue that can't be read."""
