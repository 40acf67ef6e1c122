"""Scaling studies of large multimodal models: what does the next point of score cost?"""

__version__ = "0.1.0"
