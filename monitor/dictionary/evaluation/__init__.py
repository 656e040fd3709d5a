"""Evaluation of features as detectors of labelled concepts, beside baselines, on texts held out from fitting."""
