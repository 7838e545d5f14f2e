"""Annotated pictures: read, checked, augmented, loaded in batches."""
