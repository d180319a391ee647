"""The commands that show runs: `runs`, `proof` and `dead`."""
