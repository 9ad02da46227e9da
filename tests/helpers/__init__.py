"""What tests of several kinds share; no test is in here."""
