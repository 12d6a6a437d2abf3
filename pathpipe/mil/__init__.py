"""Multiple instance learning: bags of tile features in, slide-level logits out."""
