"""Saved records drawn on their media again."""
