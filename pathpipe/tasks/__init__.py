"""What is predicted: targets, their loss and what logits mean."""
