"""Work shared out among many workers, on one machine or on a cluster."""
