"""Trackers: mirrors of the local store. A tracker is a callback; ``jsonl`` is a short one, ``wandb`` a long one.

Nothing here decides a number, and nothing here may cost one: whatever a tracker does wrong becomes one warning. The
wandb package is imported in a process of its own (``wandb.client``) and where W&B is what the user asks for: pull and
dashboard.
"""
