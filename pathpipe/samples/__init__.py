"""Real pixels that ship with pathpipe, and the demo cohort made from them."""

from pathlib import Path

BUNDLED_SLIDE = Path(__file__).parent / "CMU-1-Small-Region.svs"
DEMO_SETTINGS = Path(__file__).parent / "demo.yaml"
