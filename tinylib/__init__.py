"""Helpers of the course: load a chat model, write prompts, pad batches, generate, and show what happens."""
