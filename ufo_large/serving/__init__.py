"""Predict with a trained model: from Python, and over folders, lists and videos."""
