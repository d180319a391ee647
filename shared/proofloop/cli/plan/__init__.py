"""The command `proofloop plan`: estimates a run, and the machines for a load of problems."""
