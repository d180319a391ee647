"""proofloop from Python: what `import proofloop` offers, and what the commands are made of."""

from proofloop.api.results import CritiqueResult, ProofResult
from proofloop.api.run import Run, open_store
from proofloop.api.single import judge, prove

__all__ = ["CritiqueResult", "ProofResult", "Run", "judge", "open_store", "prove"]
