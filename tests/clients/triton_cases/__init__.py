"""The tests of triton.py, by what they are about."""
