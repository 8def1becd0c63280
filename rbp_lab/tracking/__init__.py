"""Weights & Biases as a mirror of the local store: live numbers while measuring, finished results afterwards.

Nothing here decides a number, and nothing here may cost one: whatever W&B does wrong becomes one warning. wandb is
imported inside functions of ``client`` only, and only when something is tracked.
"""
