"""proofloop from Python: the functions behind `import proofloop`, which the commands use too."""

from proofloop.api.results import CritiqueResult, ProofResult
from proofloop.api.run import Run, open_store
from proofloop.api.single import judge, prove

__all__ = ["CritiqueResult", "ProofResult", "Run", "judge", "open_store", "prove"]
