"""The trainer: takes labeled proofs and publishes better model versions. The only service that
imports torch.
"""

from proofloop.worker.roles import Role


def role() -> Role:
    """The trainer's role: the runtime finds it by its entry point."""
    from proofloop_trainer.train import Trainer, check_settings

    return Role("trainer", {"ProofLabeled": Trainer().train}, check_settings)
