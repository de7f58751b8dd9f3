"""Coming back: backoff, topology, ledger and reconnector.  Publisher and Consumer stand on them."""
