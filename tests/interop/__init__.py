"""Tests against a real RabbitMQ: what only a broker can tell."""
