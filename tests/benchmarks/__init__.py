"""The benchmark a clone can run: contenders side by side on the same tokens and weights, each checked before.

``contenders`` and ``peers`` say who runs, ``case`` on what and when an answer is right, ``rounds`` how it is timed,
``memory`` what it takes beside the weights, ``loop`` what the whole run costs, ``machine`` where this was; ``table``
and ``run`` put them together, ``__main__`` is the command.
"""
