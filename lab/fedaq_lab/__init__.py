"""Whole federations on one machine: both sides together."""
