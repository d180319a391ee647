"""The trainer: takes labeled proofs or demonstrations, and publishes new model versions. The only
service that imports torch.
"""

from proofloop.worker.roles import Handler, Role


def role() -> Role:
    """The trainer's role: the runtime finds it by its entry point."""
    from proofloop_trainer.fine_tuning.handler import train_supervised
    from proofloop_trainer.train import Trainer, check_settings

    trainer = Trainer()
    handlers: dict[str, Handler] = {
        "ProofLabeled": trainer.train,
        "FineTuningPosed": train_supervised,
    }
    return Role("trainer", handlers, check_settings, trainer.close)
