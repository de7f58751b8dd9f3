"""Laws that must hold alike on every loop: awaitables, threads and forks, backpressure."""
