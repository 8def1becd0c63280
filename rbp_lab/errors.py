"""The one exception type for what a user can put right."""


class LabError(Exception):
    """A mistake in configuration or input: the message says what was expected, what came and what to do.

    The command line prints it as one line and exits with a non-zero code; every other exception is a defect of
    rbp_lab and keeps its traceback.
    """
