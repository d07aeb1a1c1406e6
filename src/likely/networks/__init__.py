"""Networks without probability: blocks that turn images into features and features into images."""
