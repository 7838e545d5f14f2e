"""Frames to detections: resize, run the network, read its answer. Knows no file."""
