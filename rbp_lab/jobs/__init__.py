"""What surrounds the jobs of one command line: composing them, their places, waiting for them, what became of them."""
