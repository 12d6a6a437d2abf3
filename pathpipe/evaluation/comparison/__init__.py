"""Two or more models on the same patients: is the difference more than chance?"""
