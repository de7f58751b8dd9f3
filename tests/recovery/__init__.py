"""Tests of what comes back: backoff, topology, ledger, reconnector."""
