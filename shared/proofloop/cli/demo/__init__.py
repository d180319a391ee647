"""The command `proofloop demo`."""
