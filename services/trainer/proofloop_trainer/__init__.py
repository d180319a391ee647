"""The trainer: labelled proofs come in, better model versions go out. The only service that knows torch."""

from proofloop.runtime import Role


def role() -> Role:
    """The role as the runtime finds it."""
    from proofloop_trainer.train import Trainer, check_settings

    return Role("trainer", {"ProofLabeled": Trainer().train}, check_settings)
