"""Constants of colour that several rooms use. Channels are red, green, blue."""

GREY_WEIGHTS = (0.2125, 0.7154, 0.0721)
"""Weights of the grey value, as scikit-image has them."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's pixels in [0, 1]."""
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's pixels in [0, 1]."""
