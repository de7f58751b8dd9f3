"""Tests of the state machines, which open no socket."""
