"""What several suites stand on.  No test lives here."""
