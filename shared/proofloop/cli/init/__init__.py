"""`proofloop init` and the files that it writes."""
