"""What follows from detections over time: tracks, and what crosses lines and stays in zones."""
