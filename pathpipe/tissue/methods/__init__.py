"""One file a way of finding tissue; `tissue/method.py` says what each must offer."""
