"""`proofloop judge` and `proofloop evaluate`: judges and provers measured."""
