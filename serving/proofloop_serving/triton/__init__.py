"""The Triton Python-backend model around an engine. Its tensors are those of
`proofloop.engine.triton.contract`.
"""
