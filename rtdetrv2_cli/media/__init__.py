"""Pictures, videos and records, in and out. Knows no network and no command line."""
