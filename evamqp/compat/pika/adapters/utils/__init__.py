"""What pika's adapters share, as far as programs catch or call it."""
