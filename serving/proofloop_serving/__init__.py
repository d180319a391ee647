"""Serves models of proofloop: one continuous decoder, in this process (`engine`) or in Triton (`triton_model`)."""
