"""The command `proofloop plan`: what a run needs, and what a load of problems needs."""
