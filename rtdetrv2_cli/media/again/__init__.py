"""What an earlier run left, and how a run goes on with it."""
