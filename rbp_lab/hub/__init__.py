"""The Hugging Face Hub: what its failures mean, and files that arrive whole or not at all."""
