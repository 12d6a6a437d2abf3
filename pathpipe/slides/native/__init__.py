"""TIFF files from inside: where each stored tile lies in the file, how it is decoded, which ones are kept decoded."""
