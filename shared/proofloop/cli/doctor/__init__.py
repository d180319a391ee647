"""The command `proofloop doctor`."""
