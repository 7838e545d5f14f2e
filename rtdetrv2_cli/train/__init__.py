"""Training and evaluation: from annotated pictures to weights and figures."""
