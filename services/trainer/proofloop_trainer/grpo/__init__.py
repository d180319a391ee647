"""GRPO: settings, batches, the loss, the trainer."""
