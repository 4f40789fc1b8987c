"""Fit, calibrate and choose the preference of a policy; add an expert to one."""
